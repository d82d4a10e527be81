"""Strict YAML: what is read as what, what is refused, and on which line."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import yaml

from tasklib.cli import ExitCode
from tasklib.documents import dotted, load_yaml, parse_scalar, parse_yaml
from tasklib.summary import Problem, TaskError


def refused(text: str, exit_code: ExitCode = ExitCode.USAGE) -> list[Problem]:
    """The problems of a text that must not be read; every one says where and what to do."""
    with pytest.raises(TaskError) as caught:
        parse_yaml(text, "some.yaml")
    assert caught.value.exit_code == exit_code
    problems = caught.value.problems
    assert problems and all(p.file == "some.yaml" and p.message and p.hint for p in problems)
    return problems


SCALARS = [
    # words that YAML 1.1 takes for booleans
    ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("NO", "NO"), ("Yes", "Yes"),
    ("true", True), ("True", True), ("false", False), ("FALSE", False), ("tRue", "tRue"),
    ("null", None), ("~", None), ("", None), ("NULL", None), ("none", "none"), ("None", "None"),
    # numbers as a person writes them
    ("2e-4", 2e-4), ("1E3", 1000.0), ("2.5e+3", 2500.0), (".5", 0.5), ("-.5", -0.5), ("1.", 1.0), ("+3", 3), ("-7", -7),
    ("0", 0), ("012", 12), ("-0.0", 0.0),
    # what only looks like one
    ("1_000", "1_000"), ("1,000", "1,000"), ("0x1f", "0x1f"), ("0o17", "0o17"), ("1:30", "1:30"), ("5%", "5%"),
    ("1.2.3", "1.2.3"), ("e5", "e5"), ("1e", "1e"), (".", "."), (".inf", ".inf"), (".nan", ".nan"),
    ("１２", "１２"),
    # text
    ("2026-11-22", "2026-11-22"), ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z"), ("正面", "正面"),
    ('"12"', "12"), ("'2e-4'", "2e-4"), ('"true"', "true"), ("'null'", "null"), ('""', ""), ("'~'", "~"),
    ("|\n  12\n", "12\n"), (">-\n  yes\n", "yes"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "value"), SCALARS)
def test_a_scalar_is_read_as_the_person_meant_it(written, value):
    read = parse_yaml(f"key: {written}", "some.yaml").data
    assert read == {"key": value}
    assert type(read["key"]) is type(value)


@pytest.mark.parametrize("written", ["2026-11-22", "1:30", "yes", "012", "2e-4"])
def test_the_table_above_is_needed_because_plain_yaml_reads_these_otherwise(written):
    ours, theirs = parse_scalar(written), yaml.safe_load(written)
    assert (type(ours), ours) != (type(theirs), theirs)
    assert not isinstance(ours, datetime.date)


@pytest.mark.parametrize(
    ("written", "value"), [("1e-4", 1e-4), ("no", "no"), ("[q_proj, v_proj]", ["q_proj", "v_proj"]), ("", None)]
)
def test_a_value_from_the_command_line_follows_the_rules_of_a_file(written, value):
    assert parse_scalar(written) == value == parse_yaml(f"key: {written}", "some.yaml").data["key"]


def test_keys_that_look_like_numbers_or_words_of_yaml_stay_text_as_written():
    text = '0: a\n1.0: b\n012: c\n2e-4: d\n2026-11-22: e\nyes: f\n"true": g\n"": h\n'
    data = parse_yaml(text, "some.yaml").data
    assert list(data) == ["0", "1.0", "012", "2e-4", "2026-11-22", "yes", "true", ""]


@pytest.mark.parametrize("key", ["null", "~", "true", "False", "[a, b]", "{a: b}"])
def test_a_key_that_is_no_text_is_refused(key):
    (problem,) = refused(f"first: 1\n? {key}\n: 2\n")
    assert (problem.code, problem.line) == ("yaml_key", 2)
    assert "Node" not in problem.message


@pytest.mark.parametrize(
    ("text", "field", "first", "second"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", 1, 3),
        ("task:\n  type: x\n\n  type: y\n", "task.type", 2, 4),
        ("data:\n- a: 1\n  b: 2\n  a: 3\n", "data[0].a", 2, 4),
        ("labels: {x: 1, x: 2}\n", "labels.x", 1, 1),
        ('1: a\n"1": b\n', "1", 1, 2),
        ("正面: a\n\n\n正面: b\n", "正面", 1, 4),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(text, field, first, second):
    (problem,) = refused(text)
    assert (problem.code, problem.field, problem.line) == ("yaml_duplicate_key", field, second)
    assert f"first on line {first}" in problem.message


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system [ls]",
        "!!python/object:os.path {}",
        "!!python/name:os.system ''",
        "!!python/tuple [1, 2]",
        "!foo 1",
        "!foo [1]",
        "!foo {a: 1}",
        "!!str 12",
        "!!int '12'",
        "!!binary aGk=",
        "!!set {a, b}",
        "!<tag:example.com,2000:x> y",
    ],
)
def test_a_tag_is_refused_on_every_kind_of_value(value):
    (problem,) = refused(f"a: 1\nkey:\n  inner: {value}\n")
    assert (problem.code, problem.field, problem.line) == ("yaml_tag", "key.inner", 3)


def test_a_tag_on_a_key_is_refused_once():
    (problem,) = refused("a: 1\n!foo key: 2\n")
    assert (problem.code, problem.line) == ("yaml_tag", 2)


def test_an_alias_repeats_what_its_anchor_holds():
    data = parse_yaml("a: &x [1, {b: 2}]\nc: *x\nd: &y text\ne: *y\n", "some.yaml").data
    assert data == {"a": [1, {"b": 2}], "c": [1, {"b": 2}], "d": "text", "e": "text"}


@pytest.mark.parametrize("text", ["a: &x [*x]\n", "a: &x {b: *x}\n", "a: &x\n  b:\n    - c: *x\n"])
def test_an_alias_inside_its_own_anchor_is_refused(text):
    (problem,) = refused(text)
    assert problem.code == "yaml_recursive_alias"
    assert problem.line is not None


def test_a_merge_key_is_no_magic():
    assert parse_yaml("a: &x {b: 1}\nc:\n  <<: *x\n", "some.yaml").data["c"] == {"<<": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1,\n  2\n\n", 2),
        ("a: 1\n\tb: 2\n", 2),
        ("a: 1\n a: 2\n", 2),
        ('a: 1\nb: "open\n', 2),
        ("a: 1\nb: @x\n", 2),
        ("a: 1\nb: *nowhere\n", 2),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: 1\nb: \x00\n", 2),
        ("a: 1\nb: 2\nc: \x1b[0m\n", 3),
    ],
)
def test_broken_syntax_is_told_with_its_line(text, line):
    (problem,) = refused(text)
    assert (problem.code, problem.line) == ("yaml_syntax", line)
    assert "\n" not in problem.message


def test_all_problems_of_a_file_come_at_once():
    problems = refused("a: 1\na: 2\nb: !foo 1\nnull: 3\nc:\n  d: 1\n  d: 2\n")
    assert [(p.code, p.line) for p in problems] == [
        ("yaml_duplicate_key", 2),
        ("yaml_tag", 3),
        ("yaml_key", 4),
        ("yaml_duplicate_key", 7),
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "null\n"])
def test_a_file_without_values_reads_as_nothing(text):
    assert parse_yaml(text, "some.yaml").data is None


LINES = """# comment

task:
  type: classification
  labels:
    正面: a
    負面: b

data:
  files:
    all:
      - one.csv
      - two.csv
flow: {x: 1,
  y: 2}
"""


@pytest.mark.parametrize(
    ("key_path", "line"),
    [
        (("task",), 3),
        (("task", "type"), 4),
        (("task", "labels", "負面"), 7),
        (("data", "files", "all"), 11),
        (("data", "files", "all", 1), 13),
        (("flow", "x"), 14),
        (("flow", "y"), 15),
        (("task", "labels", "absent"), 5),
        (("task", "absent", "deeper"), 3),
        (("absent",), 3),
    ],
)
def test_the_line_of_a_key_is_where_it_stands_or_where_its_parent_does(key_path, line):
    document = parse_yaml(LINES, "some.yaml")
    assert document.line_of(key_path) == line
    assert parse_yaml(LINES.replace("\n", "\r\n"), "some.yaml").line_of(key_path) == line


@pytest.mark.parametrize(
    ("key_path", "text"),
    [(("data", "files", 0), "data.files[0]"), (("a",), "a"), ((0, "b"), "[0].b"), ((), ""), (("a", 1, 2), "a[1][2]")],
)
def test_a_key_path_is_shown_with_dots_and_brackets(key_path, text):
    assert dotted(key_path) == text


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfname: \xe6\xad\xa3\n", b"name: \xe6\xad\xa3\r\n", "name: 正".encode()]
)
def test_a_file_may_have_a_byte_order_mark_and_windows_line_ends(tmp_path, content):
    path = tmp_path / "設定 file.yaml"
    path.write_bytes(content)
    document = load_yaml(path)
    assert (document.data, document.path) == ({"name": "正"}, str(path))


@pytest.mark.parametrize("encoding", ["big5", "utf-16", "gb18030"])
def test_a_file_that_is_no_utf8_is_refused_with_its_name(tmp_path, encoding):
    path = tmp_path / "some.yaml"
    path.write_bytes("name: 正面\n".encode(encoding))
    with pytest.raises(TaskError) as caught:
        load_yaml(path, "configs/some.yaml")
    (problem,) = caught.value.problems
    assert (caught.value.exit_code, problem.code, problem.file) == (
        ExitCode.USAGE, "file_unreadable", "configs/some.yaml",
    )  # fmt: skip
    assert "UTF-8" in problem.hint


def test_a_file_that_does_not_exist_is_a_missing_prerequisite(tmp_path: Path):
    with pytest.raises(TaskError) as caught:
        load_yaml(tmp_path / "absent.yaml", "configs/absent.yaml")
    (problem,) = caught.value.problems
    assert (caught.value.exit_code, problem.code, problem.file) == (
        ExitCode.PREREQUISITE, "file_missing", "configs/absent.yaml",
    )  # fmt: skip
    assert problem.hint


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path):
    with pytest.raises(TaskError) as caught:
        load_yaml(tmp_path)
    assert (caught.value.exit_code, caught.value.problems[0].code) == (ExitCode.USAGE, "file_unreadable")


def test_the_two_halves_that_json_writes_for_an_emoji_are_joined_and_a_lone_half_is_refused():
    assert parse_yaml('{"\\ud83d\\ude00": "\\ud83d\\ude80"}', "x").data == {"😀": "🚀"}
    with pytest.raises(TaskError) as caught:
        parse_yaml('a: 1\nb: "\\ud83d"', "x")
    assert [(p.code, p.line, p.field) for p in caught.value.problems] == [("yaml_surrogate", 2, "b")]
