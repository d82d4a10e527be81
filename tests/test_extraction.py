"""What is particular to extraction; the laws of every type stand in test_task_type_laws.py."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from pydantic import ValidationError

from tasklib.data import json_objects, json_schemas
from tasklib.task_types import extraction

TEXT, NULLABLE = {"type": "string"}, {"type": ["string", "null"]}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": ["string", "null"], "x-in-text": True},
        "tags": {"type": "array", "items": TEXT},
        "n": {"type": "number"},
        "kind": {"enum": ["甲", "乙"]},
    },
    "required": ["name", "tags"],
}


def options(schema=SCHEMA, **more):
    return extraction.Options(type="extraction", json_schema=schema, **more)


def read(output, text="王小明 買茶"):
    return extraction.read_record({"text": text, "output": output}, options())


# Reading


def test_an_object_and_its_text_are_the_same_row_with_keys_in_the_schemas_order():
    value = {"n": 1, "tags": ["茶"], "name": "王小明"}
    record, faults = read(value)
    assert faults == [] and list(record.output) == ["name", "tags", "n"]
    assert read(json.dumps(value)) == (record, [])
    assert extraction.answer(record, options()) == '{"name":"王小明","tags":["茶"],"n":1}'


FAULTS = {
    "no JSON": ("{'name': 1}", "not_json", "output is no JSON"),
    "cut off": ('{"name": "王', "not_json", "output is no JSON"),
    "a key twice": ('{"name": null, "tags": [], "tags": []}', "not_json", "'tags' stands twice"),
    "not a number": ('{"name": null, "tags": [], "n": NaN}', "not_json", "NaN"),
    "a list": ("[]", "not_json", "not an object"),
    "a missing field": ({"name": None}, "schema_violation", "the object has no 'tags'"),
    "an unknown field": ({"name": None, "tags": [], "nmae": 1}, "schema_violation", "'nmae'; legal: name, tags, n"),
    "a wrong type": ({"name": 3, "tags": []}, "schema_violation", "name is 3; legal: string or null"),
    "in an array": ({"name": None, "tags": ["a", 1]}, "schema_violation", "tags[1] is 1; legal: string"),
    "not of a closed set": ({"name": None, "tags": [], "kind": "丙"}, "schema_violation", '"丙"; legal: "甲", "乙"'),
    "not in the text": ({"name": "王大明", "tags": []}, "value_not_in_text", "name is '王大明'"),
}


@pytest.mark.parametrize(("output", "code", "message"), FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_with_an_object_is_told_with_its_path_and_what_is_legal(output, code, message):
    record, faults = read(output)
    assert record is None and [(fault.code, fault.role) for fault in faults] == [(code, "output")]
    assert message in faults[0].message


@pytest.mark.parametrize("output", [[{"name": None, "tags": []}], '[{"name": null, "tags": []}]'])
def test_a_list_is_told_how_to_become_an_object_and_never_to_be_written_as_a_string(output):
    record, (fault,) = read(output)
    assert record is None and "a list of 1" in fault.message and "not an object" in fault.message
    assert "remove the brackets" in fault.hint and '{"items": [' in fault.hint and "string" not in fault.hint


@pytest.mark.parametrize("output", [3, True, 2.5])
def test_a_number_is_told_to_be_an_object(output):
    record, (fault,) = read(output)
    assert record is None and fault.code == "wrong_type" and "one JSON object" in fault.hint


def test_every_violation_of_a_row_comes_at_once():
    _, faults = read({"name": 1, "tags": "x", "n": "y", "more": 0})
    assert len(faults) == 4


def test_a_value_that_differs_in_width_alone_is_told_so():
    _, faults = read({"name": "ＡＢＣ", "tags": []}, text="abc 買茶")
    assert "width" in faults[0].hint


# The schema

REFUSED = {
    "an unsupported keyword": ({"a": {"type": "string", "format": "date"}}, "json_schema.properties.a.format"),
    "a misspelt keyword": ({"a": {"type": "array", "item": TEXT}}, "did you mean 'items'"),
    "a reference": ({"a": {"$ref": "#/$defs/b"}}, "json_schema.properties.a.$ref"),
    "a type that does not exist": ({"a": {"type": "text"}}, "json_schema.properties.a.type"),
    "nothing said": ({"a": {}}, "json_schema.properties.a: says nothing"),
    "deep inside": ({"a": {"type": "array", "items": {"oneOf": [TEXT]}}}, "json_schema.properties.a.items.oneOf"),
    "any other field": ({"a": {"type": "object", "additionalProperties": True}}, "a.additionalProperties"),
    "no field": ({}, "write type: object and properties"),
}


@pytest.mark.parametrize(("properties", "message"), REFUSED.values(), ids=REFUSED)
def test_a_schema_that_is_not_understood_is_refused_with_its_key_path(properties, message):
    with pytest.raises(ValidationError) as error:
        options({"type": "object", "properties": properties})
    assert message in str(error.value)


def test_a_required_field_that_is_none_is_refused():
    with pytest.raises(ValidationError, match=r"json_schema\.required: 'b' is not in properties"):
        options({"type": "object", "properties": {"a": TEXT}, "required": ["b"]})


# What a model writes

READ = {
    "a fence": ('```json\n{"a": 1}\n```', {"a": 1}),
    "words around": ('好的，結果是 {"a": 1}，請查收', {"a": 1}),
    "after a thought": ('<think>{"a": 2}?</think>{"a": 1}', {"a": 1}),
    "two objects": ('{"a": 1} {"a": 2}', None),
    "torn": ('{"b": {"a": 1}, "c": ', None),
    "a thought without an end": ('<think>{"a": 1}', None),
    "a key twice": ('{"a": 1, "a": 2}', None),
    "infinity": ('{"a": 1e999}', None),
    "half a surrogate pair": ('{"a": "\\ud800"}', None),
    "endless nesting": ('{"a":' * 100_000, None),
    "deep nesting": ('{"a":' * 60 + "1" + "}" * 60, None),
}


@pytest.mark.parametrize(("text", "value"), READ.values(), ids=READ)
def test_exactly_one_whole_object_is_read_out_of_a_text(text, value):
    assert extraction.parse(text, options()) == value


# Scores


def scores(golds, predictions):
    return extraction.score(golds, predictions, options()).metrics


SAME = {
    "order of an array": ({"tags": ["a", "b"]}, {"tags": ["b", "a"]}),
    "width and outer space": ({"name": "ABC 1"}, {"name": " ＡＢＣ 1\n"}),
    "1 and 1.0": ({"n": 1}, {"n": 1.0}),
    "null and no key": ({"name": None, "n": 1}, {"n": 1}),
}
DIFFERENT = {
    "case": ({"name": "a"}, {"name": "A"}),
    "true and 1": ({"n": 1}, {"n": True}),
    "1 and its text": ({"n": 1}, {"n": "1"}),
    "an element twice": ({"tags": ["a"]}, {"tags": ["a", "a"]}),
    "values of two elements swapped": (
        {"tags": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]},
        {"tags": [{"x": 1, "y": 4}, {"x": 3, "y": 2}]},
    ),
}


@pytest.mark.parametrize(("gold", "said"), SAME.values(), ids=SAME)
def test_what_counts_as_the_same(gold, said):
    assert scores([gold], [said])["field_f1"] == scores([gold], [said])["exact_match"] == 1.0


@pytest.mark.parametrize(("gold", "said"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_counts_as_different(gold, said):
    assert scores([gold], [said])["field_f1"] < 1.0 and scores([gold], [said])["exact_match"] == 0.0


@pytest.mark.parametrize("seed", range(10))
def test_field_f1_is_scikit_learns_micro_f1_over_all_pairs_of_path_and_value(seed):
    from sklearn.metrics import precision_recall_fscore_support

    drawn = random.Random(seed)

    def made():
        tags = drawn.sample("abc", drawn.randint(0, 3))
        return {"name": drawn.choice(["x", "y", None]), "tags": tags, "n": drawn.randint(0, 2)}

    golds, said = ([made() for _ in range(20)] for _ in range(2))
    pairs = sorted({leaf for value in golds + said for leaf in json_objects.leaves(value)}, key=repr)
    as_rows = [[[leaf in set(json_objects.leaves(v)) for leaf in pairs] for v in values] for values in (golds, said)]
    expected = precision_recall_fscore_support(*map(lambda m: [list(map(int, r)) for r in m], as_rows), average="micro")
    found = scores(golds, said)
    assert [found["field_precision"], found["field_recall"], found["field_f1"]] == pytest.approx(expected[:3])


def test_an_object_that_breaks_the_schema_is_scored_but_not_valid():
    gold = {"name": "x", "tags": ["a"]}
    found = scores([gold] * 3, [gold, {"name": "x", "tags": ["a"], "more": 1}, None])
    assert (found["parse_rate"], found["valid_json_rate"]) == pytest.approx((2 / 3, 1 / 3))
    assert found["field_f1"] == pytest.approx(2 * 4 / (6 + 6))  # the unknown field and the silence are wrong leaves
    assert found["exact_match"] == pytest.approx(1 / 3)


def test_silence_is_not_right_where_a_text_holds_nothing():
    nothing = {"name": None, "tags": []}
    assert scores([nothing, {"n": 1}], [nothing, {"n": 1}])["field_f1"] == 1.0
    assert scores([nothing, {"n": 1}], [None, {"n": 1}])["field_f1"] < 1.0


def test_each_field_has_a_line_of_its_own():
    table = extraction.score([{"name": "x", "tags": ["a", "b"]}], [{"name": "y", "tags": ["a"]}], options()).per_class
    assert list(table) == ["name", "tags", "n", "kind"]
    assert (table["name"]["f1"], table["tags"]["f1"], table["n"]["f1"]) == (0.0, pytest.approx(2 / 3), None)
    assert [line["support"] for line in table.values()] == [1, 2, 0, 0]


# Long texts

WINDOWED = {
    "type": "object",
    "properties": {"who": NULLABLE, "tags": {"type": "array", "items": TEXT}, "kind": TEXT},
    "required": ["who", "tags"],
}


def windowed(**more):
    return options(WINDOWED, windows={"max_chars": 50, "overlap_chars": 10, **more})


def test_a_long_text_is_trained_in_pieces_with_what_stands_in_each():
    text = "甲店" + "。" * 60 + "乙店" + "。" * 40 + "丙先生"
    record = extraction.Record(text=text, output={"who": "丙先生", "tags": ["甲店", "乙店"], "kind": "訂購"})
    parts = extraction.pieces(record, windowed(), training=True)
    assert [part.text for part in parts] == [text[:50], text[40:90], text[80:]]
    assert [part.output["tags"] for part in parts] == [["甲店"], ["乙店"], []]
    assert [part.output["who"] for part in parts] == [None, None, "丙先生"]
    assert {part.output["kind"] for part in parts} == {"訂購"}  # stands nowhere: it is said of the whole
    assert all(json_schemas.is_valid(part.output, WINDOWED) for part in parts)
    assert extraction.resolved(record, parts, [part.output for part in parts], windowed()) == record.output


def test_answers_of_pieces_become_one_object():
    record = extraction.Record(text="x" * 100, output={})
    parts = extraction.pieces(record, windowed(), training=False)
    values = [None, {"who": None, "tags": ["a", "b"]}, {"who": "w", "tags": ["b", "c", "c"]}]
    merged = extraction.resolved(record, parts, values, windowed())
    assert merged == {"who": "w", "tags": ["a", "b", "c"]}
    assert extraction.resolved(record, parts, [None, None, None], windowed()) is None


def test_every_character_of_a_text_stands_in_a_piece_and_a_short_text_is_one():
    for length in range(1, 300):
        text = "".join(chr(0x4E00 + n) for n in range(length))
        record = extraction.Record(text=text, output={})
        parts = [part.text for part in extraction.pieces(record, windowed(), training=False)]
        assert set("".join(parts)) == set(text) and max(map(len, parts)) <= 50 and all(parts)
        assert (len(parts) == 1) == (length <= 50)


def test_windows_need_fields_that_may_hold_nothing():
    with pytest.raises(ValidationError, match="a piece of a text may not hold it"):
        options({"type": "object", "properties": {"a": TEXT}, "required": ["a"]}, windows={"max_chars": 50})
    with pytest.raises(ValidationError, match="must be less than"):
        windowed(overlap_chars=50)


# Baselines


def test_the_majority_is_taken_field_by_field():
    train = [extraction.Record(text=str(n), output={"name": name, "tags": [], "n": 1}) for n, name in enumerate("aab")]
    assert extraction.BASELINES["majority"](train, train[:1], options()) == [{"name": "a", "tags": [], "n": 1}]


def test_the_nearest_text_lends_its_object():
    train = [extraction.Record(text=t, output={"name": t}) for t in ("修冷氣 週三", "訂便當 十個")]
    asked = [extraction.Record(text="便當 三個", output={})]
    assert extraction.BASELINES["nearest"](train, asked, options()) == [{"name": "訂便當 十個"}]


def test_the_default_instruction_names_every_field_with_what_may_stand_in_it():
    text = extraction.default_instruction(options(), "zh-TW")
    assert all(line in text for line in ("name: string | null", "tags: array of string", '"甲" | "乙"'))


def test_only_text_and_copied_strings_are_normalized():
    record = extraction.Record(text="ＡＢ", output={"name": "ＡＢ", "tags": ["Ｃ"], "n": 1})
    changed = extraction.normalized(record, ["nfkc"], options())
    assert changed.text == "AB" and changed.output == {"name": "AB", "tags": ["C"], "n": 1}


def test_names_that_the_schema_fixes_stay_as_they_are_when_texts_are_normalized():
    named = {"enum": ["买入", "卖出"]}
    properties = {
        "side": named,
        "sides": {"type": "array", "items": named},
        "maybe": {"anyOf": [named, {"type": "null"}]},
        "who": {"type": "string"},
        "both": {"anyOf": [{"type": "array", "items": {"type": "string"}}, named]},
    }
    schema = extraction.Options(type="extraction", json_schema={"type": "object", "properties": properties})
    output = {"side": "买入", "sides": ["卖出"], "maybe": "买入", "who": "软件", "both": ["买入"]}
    record = extraction.Record(text="软件买入", output=output)
    changed = extraction.normalized(record, ["opencc_s2twp"], schema)
    assert changed.text == "軟體買入"
    assert changed.output == {**output, "who": "軟體", "both": ["買入"]}


def test_leaves_are_counted_as_often_as_they_stand():
    assert Counter(json_objects.leaves({"tags": ["a", "a"]})).total() == 2
