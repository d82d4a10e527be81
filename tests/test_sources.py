"""scripts/creation/sources.py and reading.py: which raw files are meant, which split each is, and how each is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creation import reading, sources
from creation.sources import Source
from task_folder import jsonl, write
from tasklib.reading.records import Row
from workbook import xlsx

TABLE = "標題,類別\n" + "".join(f"第{n}則新聞,{('財經', '政治')[n % 2]}\n" for n in range(30))


def found(folder, files, **options):
    """(split, name) of each source, the warnings' codes, the problems' codes."""
    result = sources.find(files if isinstance(files, dict) else {"all": files}, folder, **options)
    places = [(source.split, source.path.name) for source in result.sources]
    return places, [w.code for w in result.warnings], [p.code for p in result.problems]


def understood(folder, *names, flags=None):
    sources_ = [Source("all", folder / name) for name in names]
    return reading.understand(sources_, flags or reading.Flags())


def options(folder, content, name="a.csv", **flags):
    """What one file's content asks for: (options, codes of warnings, codes of problems)."""
    write(folder / name, content)
    result = understood(folder, name, flags=reading.Flags(**flags))
    return result.sources[0].options, [w.code for w in result.warnings], [p.code for p in result.problems]


# Which files.


def test_files_globs_and_mappings_are_found_relative_to_the_answers(tmp_path):
    for name in ("a.csv", "b/c.csv", "b/d.csv", "e.txt"):
        write(tmp_path / name, TABLE)
    places, warnings, problems = found(tmp_path, ["a.csv", "b/*.csv", {"path": "e.txt", "encoding": "big5"}])
    assert places == [("all", "a.csv"), ("all", "c.csv"), ("all", "d.csv"), ("all", "e.txt")]
    assert warnings == problems == []
    assert found(tmp_path, {"train": "a.csv", "test": "**/d.csv"})[0] == [("train", "a.csv"), ("test", "d.csv")]


def test_a_name_with_the_characters_of_a_pattern_is_a_file_before_it_is_a_pattern(tmp_path):
    for name in ("a[1].csv", "a1.csv"):
        write(tmp_path / name, TABLE)
    assert found(tmp_path, ["a[1].csv"])[0] == [("all", "a[1].csv")]


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"all": ["gone.csv"]}, "file_missing"),
        ({"all": ["*.parquet"]}, "file_missing"),
        ({"all": None}, "illegal_value"),
        ({"all": []}, "illegal_value"),
        ({"all": [None]}, "illegal_value"),
        ({"all": [{"path": "a.csv", "encoding": "latin1"}]}, "illegal_value"),
        ({"all": [{"path": "a.csv", "parallel": {"label": "gone.txt"}}]}, "file_missing"),
        ({"pool": ["a.csv"]}, "unknown_key"),
        ({"all": ["a.csv", "./a.csv"]}, "file_twice"),
        ({"train": ["a.csv"], "test": ["b/../a.csv"]}, "file_twice"),
    ],
    ids=str,
)
def test_files_that_cannot_be_meant_are_problems_with_their_place_and_never_exceptions(tmp_path, files, code):
    write(tmp_path / "a.csv", TABLE)
    (tmp_path / "b").mkdir()
    result = sources.find(files, tmp_path)
    assert {problem.code for problem in result.problems} == {code}
    assert all(problem.field.startswith("data.files.") and problem.hint for problem in result.problems)


def test_a_link_to_a_file_that_is_given_too_is_the_same_file(tmp_path):
    os.symlink(write(tmp_path / "a.csv", TABLE), tmp_path / "link.csv")
    assert found(tmp_path, ["a.csv", "link.csv"])[2] == ["file_twice"]


# Folders.


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["train.csv", "dev.csv", "test.csv"], {"train": "train.csv", "validation": "dev.csv", "test": "test.csv"}),
        (["news_train.tsv", "news_val.tsv"], {"train": "news_train.tsv", "validation": "news_val.tsv"}),
        (["訓練集.xlsx", "測試集.xlsx"], {"train": "訓練集.xlsx", "test": "測試集.xlsx"}),
        (["train.csv", "README.txt", "~$train.xlsx", ".x.csv", "test.csv"], {"train": "train.csv", "test": "test.csv"}),
        (["only.csv", "notes.md"], {"all": "only.csv"}),
        (["dev.txt", "class.txt"], {"all": "dev.txt"}),
    ],
    ids=str,
)  # fmt: skip
def test_a_folder_of_split_files_or_of_one_file_says_itself_what_it_holds(tmp_path, names, places):
    for name in names:
        write(tmp_path / "set" / name, TABLE)
    result, _, problems = found(tmp_path, ["set"])
    assert dict(result) == places and problems == []


def test_a_file_beside_the_splits_is_left_out_and_named(tmp_path):
    for name in ("train.txt", "test.txt", "class.txt", "extra.txt"):
        write(tmp_path / "set" / name, TABLE)
    result = sources.find({"all": ["set"]}, tmp_path)
    (warning,) = result.warnings
    assert warning.code == "file_left_out" and "class.txt, extra.txt" in warning.message
    assert {source.split for source in result.sources} == {"train", "test"}


@pytest.mark.parametrize(
    "names",
    [
        ["2024.csv", "2025.csv"],
        ["train.csv", "train.json"],  # the same rows twice?
        ["pos.txt", "neg.txt", "test.txt"],  # a class called test?
        ["dev.csv", "test.csv"],
        ["notes.pdf"],
        [],
        ["train/pos.txt", "test/pos.txt"],
    ],
    ids=str,
)
def test_a_folder_that_can_be_read_in_two_ways_is_refused_with_what_lies_in_it(tmp_path, names):
    (tmp_path / "set").mkdir()
    for name in names:
        write(tmp_path / "set" / name, TABLE)
    result = sources.find({"all": ["set"]}, tmp_path)
    (problem,) = result.problems
    assert problem.code == "which_file" and not result.sources and "name the files" in problem.hint
    listed = [name.split("/")[0] for name in names if not name.endswith(".pdf")]
    assert all(name in problem.message for name in listed)
    assert ("--train set/test" in problem.hint) == any("/" in name for name in names)


def test_a_folder_given_as_one_split_is_not_split_again(tmp_path):
    for name in ("train.csv", "test.csv"):
        write(tmp_path / "set" / name, TABLE)
    assert found(tmp_path, {"train": ["set"]})[2] == ["which_file"]


# Splits by names.


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"), ("TRAIN-00000-of-00002.parquet", "train"), ("news_dev.jsonl", "validation"),
        ("val2.csv", "validation"), ("x.test.tsv", "test"), ("訓練資料.csv", "train"), ("驗證.csv", "validation"),
        ("contest.csv", None), ("traintest.csv", None), ("train_test.csv", None), ("news.csv", None),
        ("測試train.csv", None),
        ("validated.csv", None), ("training.test", "train"),
    ],
)  # fmt: skip
def test_the_split_that_a_name_speaks_of(name, split):
    assert sources.split_of(name) == split


@pytest.mark.parametrize(
    ("names", "splits", "code"),
    [
        (["train.csv", "test.csv"], ["train", "test"], "splits_by_name"),
        (["train1.csv", "train2.csv"], ["all", "all"], None),
        (["news.csv", "more.csv"], ["all", "all"], None),
        (["train.csv", "more.csv"], ["all", "all"], None),
        (["news.csv", "test.csv"], ["all", "all"], "which_split"),
        (["dev.csv", "test.csv"], ["all", "all"], "which_split"),
        (["test1.csv", "test2.csv"], ["all", "all"], None),
        (["test.csv"], ["all"], None),
    ],
    ids=str,
)
def test_files_given_together_are_not_mixed_where_their_names_keep_them_apart(tmp_path, names, splits, code):
    for name in names:
        write(tmp_path / name, TABLE)
    places, warnings, problems = found(tmp_path, names, by_name=True)
    assert [split for split, _ in places] == splits
    assert warnings + problems == ([code] if code else [])
    assert {split for split, _ in found(tmp_path, names)[0]} == {"all"}, "answers that say all mean all"


# One file for each class.


def by_class(folder, *names, splits=None):
    made = [Source((splits or {}).get(name, "all"), folder / name) for name in names]
    result, warnings = sources.by_class(reading.understand(made, reading.Flags()).sources)
    return [source.options.get("values", {}).get("label") for source in result], warnings


def test_plain_texts_in_files_of_their_own_get_the_names_of_the_files_as_labels(tmp_path):
    for name in ("好評.txt", "負評.txt"):
        write(tmp_path / name, "".join(f"第{n}則，有逗號\n" for n in range(20)))
    labels, (warning,) = by_class(tmp_path, "好評.txt", "負評.txt")
    assert labels == ["好評", "負評"] and "好評, 負評" in warning.message


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        ({"train.txt": "one\ntwo\n", "test.txt": "three\n"}, {}),
        ({"a.txt": "one\ntwo\n"}, {}),
        ({"a.txt": "one\ntwo\n", "b.csv": TABLE}, {}),
        (
            {
                "a.txt": "第一則\t財經\n第二則\t政治\n第三則\t財經\n第四則\t政治\n",
                "b.txt": "第五則\t財經\n第六則\t財經\n",
            },
            {},
        ),
        ({"a.txt": "one\ntwo\n", "b.txt": "three\n"}, {"a.txt": "train", "b.txt": "test"}),
    ],
    ids=["splits", "one", "a table", "tables", "two splits"],
)
def test_file_names_are_no_labels_where_they_may_say_something_else(tmp_path, files, splits):
    for name, content in files.items():
        write(tmp_path / name, content)
    assert by_class(tmp_path, *files, splits=splits) == ([None] * len(files), [])


def test_classes_in_each_split_are_labels_as_well(tmp_path):
    names = ["train/pos.txt", "train/neg.txt", "test/pos.txt", "test/neg.txt"]
    for name in names:
        write(tmp_path / name, "".join(f"text {n} of {name}\n" for n in range(20)))
    labels, _ = by_class(tmp_path, *names, splits={name: name.split("/")[0] for name in names})
    assert labels == ["pos", "neg", "pos", "neg"]


# How a file is read.


@pytest.mark.parametrize(
    ("content", "header"),
    [
        ("標題,類別\n" + "甲乙丙,財經\n丁戊己,政治\n" * 10, True),
        ("text,label\n" + "a b,0\nc d,1\n" * 10, True),
        ("t,l\n" + "a b,0\nc d,1\n" * 10, True),  # numbers under no number
        ("a b c,0\n" + "d e f,1\ng h i,0\n" * 10, False),
        ("好的產品,正面\n" + "壞的產品,負面\n很好,正面\n" * 10, False),
        ("一,新聞\n" + "二,新聞\n三,八卦\n" * 10, False),  # a label that is the name of a column elsewhere
        ("message,spam\n" + "hello you,ham\nbuy now,spam\n" * 10, True),  # a column with the name of one of its labels
        ("t,label\n" + "甲乙,財經\n丙丁,政治\n" * 10 + "t,label\n戊己,財經\n", True),  # exports put together
        ("0,1\n" + "甲乙丙,財經\n丁戊己,政治\n" * 10, True),  # pandas without names
        (",內文\n" + "".join(f"{n},第{n}則新聞\n" for n in range(20)), True),  # pandas with its index
        ("標題,2024\n" + "甲乙丙,3\n丁戊己,4\n" * 10, True),
        ("日期戳,意見\n" + "".join(f"2026/1/{n + 1} 上午 9:23:11,第{n}則意見\n" for n in range(20)), True),
        ("甲,乙,丙\n第一則,財經,a\n", True),
    ],
)
def test_whether_the_first_line_names_the_columns_is_judged_by_the_lines_below(tmp_path, content, header):
    given, warnings, problems = options(tmp_path, content)
    assert ("columns" not in given) == header and problems == []
    assert warnings == ([] if header else ["no_header"])


def test_a_headerless_table_of_five_rows_is_seen_by_the_label_that_comes_again(tmp_path):
    content = "甲的新聞,財經\n乙的新聞,政治\n丙的新聞,體育\n丁的新聞,財經\n戊的新聞,政治\n"
    assert options(tmp_path, content)[0] == {"columns": ["column_1", "column_2"]}


def test_a_first_line_as_long_as_the_texts_is_refused_with_both_readings_unless_a_flag_names_it(tmp_path):
    first = "您對於本次活動的整體安排有什麼建議"
    content = f"{first},怎麼稱呼\n" + "".join(f"場地太小而且動線不好，第{n}次來還是一樣,王{n}明\n" for n in range(20))
    write(tmp_path / "a.csv", content)
    result = understood(tmp_path, "a.csv")
    assert [problem.code for problem in result.problems] == ["row_or_header"]
    assert [option["value"] for option in result.candidates["first_line"]] == ["--columns", "--text-field"]
    assert options(tmp_path, content, named=frozenset([first])) == ({}, [], [])
    assert options(tmp_path, content, columns=("意見", "姓名"))[0] == {"columns": ["意見", "姓名"]}


@pytest.mark.parametrize("first", ["2026 年客服紀錄,,", "2026 年客服紀錄"])
def test_a_title_above_the_table_is_refused_as_such(tmp_path, first):
    content = f"{first}\n日期,標題,類別\n" + "".join(f"2026-01-0{n % 9 + 1},第{n}則,甲\n" for n in range(20))
    assert options(tmp_path, content)[2] == ["title_above_table"]
    book = xlsx({"表": [["2026 年客服紀錄"], [], ["標題", "類別"], *[[f"第{n}則", "甲"] for n in range(20)]]})
    assert options(tmp_path, book, "a.xlsx")[2] == ["title_above_table"]


def test_a_headerless_sheet_gets_numbered_columns(tmp_path):
    rows = [[f"第{n}則新聞", "甲乙"[n % 2]] for n in range(20)]
    assert options(tmp_path, xlsx({"表": rows}), "a.xlsx")[0] == {"columns": ["column_1", "column_2"]}


def test_quotes_are_characters_where_only_that_reads_every_row(tmp_path):
    plain = "text\tlabel\n" + '"no way\tbad\nfine\tgood\n' * 10
    assert options(tmp_path, plain, "a.tsv")[:2] == ({"quoting": False}, ["quotes_are_text"])
    quoted = '"text"\t"label"\n' + '"he said no"\t"bad"\n"fine"\t"good"\n' * 10 + '"broken\t"bad"\n'
    assert options(tmp_path, quoted, "a.tsv")[0] == {}, "one broken quote among quoted cells is a fault of its row"


@pytest.mark.parametrize(
    "prose", ["Well, yes, no, maybe {}\nNothing {}\nOnce, {}\n", "一行一則的文字{}\n另一行{}\n第三行{}\n"]
)
def test_a_txt_of_prose_is_one_text_a_line_whatever_commas_it_has(tmp_path, prose):
    text = "".join(prose.format(n, n, n) for n in range(30))
    given, _, _ = options(tmp_path, text, "a.txt")
    assert given == {"format": "lines"}
    (source,) = understood(tmp_path, "a.txt").sources
    assert sum(isinstance(item, Row) for item in source.rows()) == 90


def test_a_txt_of_one_column_with_a_name_keeps_its_header(tmp_path):
    assert options(tmp_path, "內文\n第一則\n第二則\n第三則\n", "a.txt")[0] == {}


def test_a_headerless_file_takes_the_names_of_its_sibling_and_a_small_one_its_lack_of_names(tmp_path):
    write(tmp_path / "train.csv", TABLE)
    write(tmp_path / "test.csv", TABLE.split("\n", 1)[1])
    result = understood(tmp_path, "train.csv", "test.csv")
    assert [source.options.get("columns") for source in result.sources] == [None, ["標題", "類別"]]
    assert "columns_from_sibling" in [warning.code for warning in result.warnings]
    write(tmp_path / "train.csv", TABLE.split("\n", 1)[1])
    write(tmp_path / "dev.csv", "短的,政治\n長的,財經\n")
    result = understood(tmp_path, "train.csv", "dev.csv")
    assert [source.options.get("columns") for source in result.sources] == [["column_1", "column_2"]] * 2


def test_flags_reach_the_files_they_can_be_said_of_and_no_other(tmp_path):
    write(tmp_path / "a.csv", TABLE.split("\n", 1)[1])
    write(tmp_path / "b.jsonl", jsonl({"標題": "x", "類別": "y"}))
    write(tmp_path / "c.xlsx", xlsx({"一": [["標題", "類別"], ["x", "y"]], "二": [["標題", "類別"], ["x", "y"]]}))
    flags = reading.Flags(columns=("標題", "類別"), sheet="二")
    result = reading.understand([Source("all", tmp_path / name) for name in ("a.csv", "b.jsonl")], flags)
    assert [source.options for source in result.sources] == [{"columns": ["標題", "類別"]}, {}]
    assert [(p.code, p.field) for p in result.problems] == [("unused_flag", "--sheet")]
    sheet = understood(tmp_path, "c.xlsx", flags=reading.Flags(sheet="二")).sources[0]
    assert sheet.options == {"sheet": "二"}


def test_what_the_answers_say_of_a_file_stays_as_it_is(tmp_path):
    write(tmp_path / "a.csv", TABLE.encode("cp950"))
    given = {"encoding": "big5", "columns": ["x", "y"], "quoting": True}
    result = reading.understand([Source("all", tmp_path / "a.csv", given)], reading.Flags(encoding="gb18030"))
    assert result.sources[0].options == given and result.warnings == result.problems == []


def test_a_folder_or_a_file_of_another_kind_is_a_problem(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    write(tmp_path / "a.csv", b"%PDF-1.7")
    result = understood(tmp_path, "folder.csv", "a.csv")
    assert [problem.code for problem in result.problems] == ["file_missing", "unknown_format"]


@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.txt", "a.jsonl", "a.xlsx", "a.tsv"]))
def test_no_content_makes_an_exception(tmp_path_factory, content, name):
    folder = tmp_path_factory.mktemp("any")
    options(folder, content, name)


@given(st.text(alphabet='甲乙ab1,"\t\n 標題', max_size=120))
def test_no_table_makes_an_exception(tmp_path_factory, content):
    options(tmp_path_factory.mktemp("any"), content)


# What becomes of them.


def test_raw_names_are_unique_and_parallel_files_are_copied_too():
    a = Source("all", Path("/x/a.txt"), parallel={"label": Path("/y/a.txt")})
    b = Source("all", Path("/z/a.txt"), parallel={"label": Path("/y/a.txt")})
    names = sources.raw_names([a, b])
    assert names == {Path("/x/a.txt"): "a.txt", Path("/y/a.txt"): "a-2.txt", Path("/z/a.txt"): "a-3.txt"}
    files = sources.data_files([a, Source("test", Path("/z/a.txt"), {"encoding": "big5"})], names)
    assert files == {
        "all": [{"path": "data/raw/a.txt", "parallel": {"label": "data/raw/a-2.txt"}}],
        "test": [{"path": "data/raw/a-3.txt", "encoding": "big5"}],
    }
    assert sources.data_files([Source("all", Path("/z/a.txt"))], names) == {"all": ["data/raw/a-3.txt"]}
