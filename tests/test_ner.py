"""Named entities: every form of raw rows with its faults, places recovered from answers, windows, metrics."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from task_folder import jsonl, make_task
from tasklib.data import spans
from tasklib.task_types import ner

OPTIONS = ner.Options(type="ner", entity_types={"PER": "人名", "ORG": "組織", "LOC": "地點"})
TEXT = "🙂王小明到台北，王小明又到高雄"


def options(**more):
    return ner.Options(type="ner", entity_types=["PER", "ORG", "LOC"], **more)


def codes(values, made=OPTIONS):
    record, faults = ner.read_record(values, made)
    assert (record is None) == bool(faults)
    return [fault.code for fault in faults]


def hints(values, made=OPTIONS):
    return " ".join(fault.hint for fault in ner.read_record(values, made)[1])


def entities(values, made=OPTIONS):
    record, faults = ner.read_record(values, made)
    assert faults == []
    return [(record.text[e["start"] : e["end"]], e["type"]) for e in record.entities]


# Spans


@pytest.mark.parametrize(
    "span",
    [
        {"start": 1, "end": 4, "type": "PER"},
        {"start": 1, "end": 4, "label": "PER", "text": "王小明"},
        {"start_offset": 1, "end_offset": 4, "label": "PER", "id": 7},
        {"begin": 1, "end": 4, "type": "PER"},
        {"start": 1, "end": 4, "labels": None, "label": ["PER"]},
        {"start": 1, "end": 4, "text": "王小明", "labels": ["PER"]},
        [1, 4, "PER"],
    ],
)
def test_spans_are_read_under_the_names_that_tools_give_them(span):
    assert entities({"text": TEXT, "entities": [span]}) == [("王小明", "PER")]
    assert entities({"text": TEXT, "entities": json.dumps([span])}) == [("王小明", "PER")]


def test_inclusive_ends_and_utf16_units_are_read_where_they_are_declared():
    inclusive, utf16 = options(offsets={"end": "inclusive"}), options(offsets={"unit": "utf16"})
    assert entities({"text": TEXT, "entities": [[1, 3, "PER"]]}, inclusive) == [("王小明", "PER")]
    assert entities({"text": TEXT, "entities": [[2, 5, "PER"]]}, utf16) == [("王小明", "PER")]
    both = options(offsets={"end": "inclusive", "unit": "utf16"})
    assert entities({"text": TEXT, "entities": [[2, 4, "PER"]]}, both) == [("王小明", "PER")]


MISMATCHES = {
    "inclusive": ([1, 3], "王小明", "task.offsets: {end: inclusive}"),
    "from one": ([2, 5], "小明到", None),
    "one too large": ([3, 6], "小明到", "subtract 1"),
    "one too small": ([0, 3], "王小明", "add 1"),
    "utf16": ([6, 8], "台北", "task.offsets: {unit: utf16}"),
    "elsewhere": ([9, 12], "高雄", "the text has it at 13 to 15"),
    "nowhere": ([1, 4], "陳大同", "the text does not hold it"),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_words_that_are_not_at_their_offsets_are_told_with_the_convention_that_fits(case):
    (start, end), words, hint = MISMATCHES[case]
    text = TEXT if case == "utf16" else TEXT.replace("🙂", "噢")
    values = {"text": text, "entities": [{"start": start, "end": end, "type": "PER", "text": words}]}
    if hint is None:
        assert entities(values) == [(words, "PER")]
    else:
        assert codes(values) == ["span_mismatch"] and hint in hints(values)


def test_an_exclusive_end_where_inclusive_ones_are_declared_is_named():
    values = {"text": TEXT, "entities": [{"start": 1, "end": 4, "type": "PER", "text": "王小明"}]}
    assert codes(values, options(offsets={"end": "inclusive"})) == ["span_mismatch"]
    assert "{end: exclusive}" in hints(values, options(offsets={"end": "inclusive"}))


CONVENTIONS = [(end, unit) for end in ("exclusive", "inclusive") for unit in ("code_points", "utf16")]


@pytest.mark.parametrize("declared", CONVENTIONS)
@pytest.mark.parametrize("real", CONVENTIONS)
def test_of_every_two_conventions_what_to_declare_is_written_and_then_right(declared, real):
    words, start, end = "王小明", 6, 9  # behind two emoji, so that all conventions have other numbers
    text = "甲🙂乙🙂丙丁王小明到台北"
    start, end = (start + 2, end + 2) if real[1] == "utf16" else (start, end)
    span = {"start": start, "end": end - (real[0] == "inclusive"), "type": "PER", "text": words}
    values = {"text": text, "entities": [span]}
    if declared != real:
        hint = hints(values, options(offsets=dict(zip(("end", "unit"), declared, strict=True))))
        written = yaml.safe_load(hint.split("write ")[1].removeprefix("task."))
        assert ner.Offsets(**written["offsets"]) == ner.Offsets(end=real[0], unit=real[1])
    assert entities(values, options(offsets=dict(zip(("end", "unit"), real, strict=True)))) == [(words, "PER")]


def test_corrected_offsets_are_written_as_they_are_declared():
    made = options(offsets={"end": "inclusive", "unit": "utf16"})
    values = {"text": "🙂到 台北 去", "entities": [[3, 6, "LOC"], [5, 8, "LOC"]]}
    assert "leave it out: 4 to 5" in hints({**values, "entities": [[3, 6, "LOC"]]}, made)
    elsewhere = {"start": 0, "end": 1, "type": "LOC", "text": "台北"}
    assert "the text has it at 4 to 5" in hints({**values, "entities": [elsewhere]}, made)


FAULTS = {
    "behind the end": ([[1, 99, "PER"]], ["span_out_of_range"], "utf16"),
    "before the beginning": ([[-1, 2, "PER"]], ["span_out_of_range"], "begins at 0"),
    "empty": ([[3, 3, "PER"]], ["span_out_of_range"], "inclusive"),
    "turned around": ([[4, 1, "PER"]], ["span_out_of_range"], "begins at 0"),
    "unknown type": ([[1, 4, "PRE"]], ["unknown_type"], "did you mean 'PER'?"),
    "twice": ([[1, 4, "PER"], [1, 4, "PER"]], ["duplicate_span"], "remove one"),
    "nested": ([[1, 4, "PER"], [1, 7, "ORG"]], ["overlapping_spans"], "keep the one"),
    "crossing": ([[1, 4, "PER"], [3, 7, "LOC"]], ["overlapping_spans"], "keep the one"),
    "no span": ([[1, 4]], ["bad_span"], "[0, 3, PER]"),
    "text offsets": ([["1", "4", "PER"]], ["bad_span"], "[0, 3, PER]"),
    "no list": ({"start": 1}, ["wrong_type"], "write a list"),
    "no JSON": ("[1,", ["wrong_type"], "write a list"),
    "missing": (None, ["missing_field"], "write a list"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_bad_span_is_a_fault_with_a_way_out(case):
    given_spans, expected, hint = FAULTS[case]
    values = {"text": TEXT, "entities": given_spans}
    assert codes(values) == expected and hint in hints(values)


def test_white_space_at_the_edge_of_an_entity_is_told_with_the_span_without_it():
    values = {"text": "到 台北 去", "entities": [[1, 4, "LOC"]]}
    assert codes(values) == ["span_white_space"] and "2 to 4" in hints(values)


def test_all_faults_of_a_row_come_at_once():
    assert codes({"text": TEXT, "entities": [[1, 99, "PER"], [1, 4, "X"], [0, 0, "LOC"], 7]}) == [
        "span_out_of_range", "unknown_type", "span_out_of_range", "bad_span",
    ]  # fmt: skip


# Tokens and tags

SCHEMES = {
    "BIO": "B-PER I-PER I-PER O B-LOC I-LOC",
    "BIOES": "B-PER I-PER E-PER O B-LOC E-LOC",
    "BMES": "B-PER M-PER E-PER O B-LOC E-LOC",
    "BILOU": "B-PER I-PER L-PER O B-LOC L-LOC",
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_of_tags_is_read(scheme):
    row = {"tokens": list("王小明到台北"), "tags": SCHEMES[scheme].split()}
    assert entities(row) == [("王小明", "PER"), ("台北", "LOC")]
    assert entities({"tokens": "王 小 明 到 台 北", "tags": SCHEMES[scheme]}) == [("王小明", "PER"), ("台北", "LOC")]


def test_neighbours_and_single_tokens_stay_apart():
    assert entities({"tokens": list("高雄台南"), "tags": ["B-LOC", "I-LOC", "B-LOC", "I-LOC"]}) == [
        ("高雄", "LOC"), ("台南", "LOC"),
    ]  # fmt: skip
    for single in ("S", "U"):
        row = {"tokens": list("王和李"), "tags": f"{single}-PER O {single}-PER".split()}
        assert entities(row) == [("王", "PER"), ("李", "PER")]


def test_latin_words_are_parted_by_a_space_and_chinese_ones_are_not():
    assert spans.joined(["EU", "rejects", "German", "call"])[0] == "EU rejects German call"
    assert spans.joined(["使用", "iPhone", "手機", "17", "Pro"]) == ("使用iPhone手機17 Pro", [0, 2, 8, 10, 13])
    assert spans.joined(list("用 iOS 手機"))[0] == "用 iOS 手機"


TAG_FAULTS = {
    "an orphan": ("O I-PER", ["orphan_tag"], "task.orphan_tags: begin"),
    "another type inside": ("B-PER I-LOC", ["orphan_tag"], "task.orphan_tags: begin"),
    "behind an end": ("S-PER I-PER", ["orphan_tag"], "task.orphan_tags: begin"),
    "no tag": ("B-PER X", ["bad_tag"], "legal: O"),
    "underscore": ("B_PER O", ["bad_tag"], "did you mean 'B-PER'?"),
    "no type": ("B- O", ["bad_tag"], "legal: O"),
    "no prefix": ("B-PER -PER", ["bad_tag"], "legal: O"),
    "two prefixes": ("BI-PER O", ["bad_tag"], "legal: O"),
    "unknown type": ("B-PRE O", ["unknown_type"], "did you mean 'PER'?"),
    "too many": ("B-PER O O", ["tag_count"], "one tag for each token"),
}


def test_tags_that_are_numbers_are_told_to_need_their_names():
    row = {"tokens": ["王", "明"], "tags": [1, 2]}
    assert codes(row) == ["wrong_type"] and "B-PER" in hints(row)


@pytest.mark.parametrize("tokens", [["王", ""], ["王", "\u3000"], ["", "王"]])
def test_an_entity_that_is_empty_or_ends_in_white_space_is_a_fault_of_its_tags(tokens):
    row = {"tokens": tokens, "tags": ["S-PER", "S-PER"]}
    assert codes(row) == ["span_white_space"] and "O" in hints(row)


@pytest.mark.parametrize("case", TAG_FAULTS)
def test_a_bad_tag_is_a_fault_with_a_way_out(case):
    tags, expected, hint = TAG_FAULTS[case]
    row = {"tokens": ["王", "明"], "tags": tags.split()}
    assert codes(row) == expected and hint in hints(row)


def test_orphans_begin_an_entity_where_that_is_declared_as_seqeval_reads_them():
    made = options(orphan_tags="begin")
    row = {"tokens": list("王小明到台北"), "tags": ["I-PER", "I-PER", "I-PER", "O", "B-PER", "I-LOC"]}
    assert entities(row, made) == [("王小明", "PER"), ("台", "PER"), ("北", "LOC")]


@pytest.mark.parametrize("seed", range(20))
def test_tags_are_read_as_seqeval_reads_them(seed):
    from seqeval.metrics.sequence_labeling import get_entities

    dice = random.Random(seed)
    tags = [dice.choice(["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC"]) for _ in range(40)]
    _, found, _ = spans.from_tags(["字"] * 40, tags, ["PER", "LOC"], begin_orphans=True)
    assert [(span["type"], span["start"], span["end"] - 1) for span in found] == get_entities(tags)


# Tags within the text


def test_inline_tags_of_both_kinds_are_read():
    assert entities({"tagged": "<PER>王小明</PER>到<LOC>台北</LOC>"}) == [("王小明", "PER"), ("台北", "LOC")]
    assert entities({"tagged": "[王小明](PER)到[台北](LOC)"}) == [("王小明", "PER"), ("台北", "LOC")]


def test_other_angle_brackets_and_lone_brackets_are_text():
    assert ner.read_record({"tagged": "x < y，[註] 見 <br> 與 a>b"}, OPTIONS)[0].text == "x < y，[註] 見 <br> 與 a>b"


def test_a_type_in_brackets_may_have_any_name_and_a_link_is_text():
    made = ner.Options(type="ner", entity_types={"人物/姓名": "人名", "LOC": "地點"})
    row = {"tagged": "[王小明](人物/姓名)到[台北](LOC )看[官網](https://a.tw/x)[註](見 下頁)"}
    assert entities(row, made) == [("王小明", "人物/姓名"), ("台北", "LOC")]
    assert ner.read_record(row, made)[0].text == "王小明到台北看[官網](https://a.tw/x)[註](見 下頁)"


INLINE_FAULTS = {
    "no partner": ("<PER>王小明到台北", ["lone_tag"]),
    "closed alone": ("王小明</PER>", ["lone_tag"]),
    "unknown": ("<PRE>王小明</PRE>", ["unknown_type"]),
    "nested": ("<ORG><LOC>台北</LOC>大學</ORG>", ["overlapping_spans"]),
    "empty": ("<PER></PER>王", ["span_white_space"]),
    "white space": ("<PER> 王小明</PER>", ["span_white_space"]),
}


@pytest.mark.parametrize("case", INLINE_FAULTS)
def test_a_bad_inline_tag_is_a_fault(case):
    tagged, expected = INLINE_FAULTS[case]
    assert codes({"tagged": tagged}) == expected


@given(st.text(), st.text())
def test_no_row_raises_whatever_stands_in_it(one, other):
    for values in (
        {"text": one, "entities": other}, {"tokens": one, "tags": other}, {"tagged": one + "<PER>" + other},
        {"text": one, "entities": [[0, len(one), other], other, None, {"start": one}]},
        {"tokens": [one, other], "tags": [other, one]},
    ):  # fmt: skip
        record, faults = ner.read_record(values, OPTIONS)
        assert (record is None) == bool(faults)


# Answers and places


def test_a_mention_is_the_next_one_of_its_words_and_nth_says_where_it_is_not():
    record = ner.Record(text="蘋果很甜，蘋果發表新機，蘋果漲", entities=[{"start": 5, "end": 7, "type": "ORG"}])
    answer = ner.answer(record, OPTIONS)
    assert json.loads(answer) == [{"text": "蘋果", "type": "組織", "nth": 2}]
    assert ner.resolved(record, [record], [ner.parse(answer, OPTIONS)], OPTIONS) == ner.gold(record)


@given(st.data())
def test_places_come_back_from_every_answer(data):
    text = data.draw(st.text(alphabet="甲乙丙 a🙂", min_size=1, max_size=30))
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8, unique=True)))
    found = [
        {"start": start, "end": end, "type": data.draw(st.sampled_from(["PER", "ORG"]))}
        for start, end in zip(places[::2], places[1::2], strict=False)
    ]
    record = ner.Record(text=text, entities=found)
    parsed = ner.parse(ner.answer(record, OPTIONS), OPTIONS)
    assert ner.resolved(record, [record], [parsed], OPTIONS) == ner.gold(record)


def test_words_that_are_not_in_the_text_have_no_place_and_count_as_wrong():
    record = ner.Record(text="王小明到台北", entities=[{"start": 0, "end": 3, "type": "PER"}])
    said = ner.parse('[{"text":"王小明","type":"人名"},{"text":"東京","type":"地點"}]', OPTIONS)
    found = ner.resolved(record, [record], [said], OPTIONS)
    assert found[1]["start"] is None
    scores = ner.score([ner.gold(record)], [found], OPTIONS).metrics
    assert scores["entity_precision"] == 0.5 and scores["entity_recall"] == 1.0 and scores["exact_match"] == 0.0


PARSED = {
    "a code fence": ('```json\n[{"text":"王","type":"人名"}]\n```', 1),
    "words around": ('答案：[{"text":"王","type":"人名"}]。', 1),
    "nothing found": ("[]", 0),
    "cut off": ('[{"text":"王","type":"人名"},{"text":"台', None),
    "unknown type": ('[{"text":"王","type":"動物"}]', None),
    "no text": ('[{"type":"人名"}]', None),
    "two lists": ('[{"text":"王","type":"人名"}] 或 [{"text":"李","type":"人名"}]', None),
    "nth below one": ('[{"text":"王","type":"人名","nth":0}]', None),
}


@pytest.mark.parametrize("case", PARSED)
def test_an_answer_is_read_whole_or_not_at_all(case):
    text, n = PARSED[case]
    found = ner.parse(text, OPTIONS)
    assert found is None if n is None else len(found) == n


# Windows


def long_record(n=12):
    text, found = "", []
    for number in range(n):
        name = f"王小{'明華英強'[number % 4]}"
        start = len(text) + 2
        text += f"今天{name}在台北開會討論第{number}案。"
        found += [
            {"start": start, "end": start + 3, "type": "PER"},
            {"start": start + 4, "end": start + 6, "type": "LOC"},
        ]
    return ner.Record(text=text, entities=found)


def test_windows_cover_the_text_end_with_sentences_and_give_back_every_entity():
    record, made = long_record(), options(windows={"max_chars": 60, "overlap_chars": 20})
    for training in (True, False):
        pieces = ner.pieces(record, made, training=training)
        assert len(pieces) > 3 and all(len(piece.text) <= 60 for piece in pieces)
        assert all(record.text[p.offset : p.offset + len(p.text)] == p.text for p in pieces)
        assert pieces[0].offset == 0 and pieces[-1].offset + len(pieces[-1].text) == len(record.text)
        assert all(piece.text.endswith("。") for piece in pieces[:-1])
        values = [ner.parse(ner.answer(piece, made), made) for piece in pieces]
        assert ner.resolved(record, pieces, values, made) == ner.gold(record)


def test_what_is_asked_does_not_depend_on_the_gold_entities():
    record, made = long_record(), options(windows={"max_chars": 50, "overlap_chars": 10})
    without = record.model_copy(update={"entities": []})
    asked = [[(p.text, p.offset) for p in ner.pieces(r, made, training=False)] for r in (record, without)]
    assert asked[0] == asked[1]


def test_a_training_window_ends_before_an_entity_that_it_would_cut():
    text = "字" * 45 + "國立臺灣大學附設醫院" + "字" * 60
    record = ner.Record(text=text, entities=[{"start": 45, "end": 55, "type": "ORG"}])
    made = options(windows={"max_chars": 50, "overlap_chars": 12})
    pieces = ner.pieces(record, made, training=True)
    assert pieces[0].text == "字" * 45
    assert sum(len(piece.entities) for piece in pieces) >= 1
    for piece in pieces:
        whole = {(e["start"] + piece.offset, e["end"] + piece.offset) for e in piece.entities}
        cut = piece.offset < 55 and piece.offset + len(piece.text) > 45
        assert whole == {(45, 55)} or not cut or piece.offset > 45


def test_no_training_window_begins_or_ends_inside_an_entity_and_all_entities_are_in_one():
    dice = random.Random(0)
    for _ in range(100):
        text, found = "", []
        while len(text) < 200:
            text += "字" * dice.randrange(1, 9) + dice.choice(["。", ""])
            length = dice.randrange(1, 11)
            found.append({"start": len(text), "end": len(text) + length, "type": "ORG"})
            text += "名" * length
        max_chars = dice.randrange(40, 80)
        made = options(windows={"max_chars": max_chars, "overlap_chars": dice.randrange(10, max_chars // 2)})
        pieces = ner.pieces(ner.Record(text=text, entities=found), made, training=True)
        spans_of = [(piece.offset, piece.offset + len(piece.text)) for piece in pieces]
        edges = {place for span in spans_of for place in span}
        assert not any(entity["start"] < edge < entity["end"] for entity in found for edge in edges)
        assert all(any(a <= e["start"] and e["end"] <= b for a, b in spans_of) for e in found)
        assert all(one < other and one[1] >= other[0] for one, other in itertools.pairwise(spans_of))


def test_an_entity_longer_than_the_overlap_does_not_hold_the_windows_up():
    text = "字" * 20 + "名" * 40 + "字" * 90
    record = ner.Record(text=text, entities=[{"start": 20, "end": 60, "type": "ORG"}])
    pieces = ner.pieces(record, options(windows={"max_chars": 50, "overlap_chars": 12}), training=True)
    assert len(pieces) <= 5 and any(piece.entities for piece in pieces)


def test_a_window_whose_answer_cannot_be_read_costs_its_own_entities_alone():
    record, made = long_record(), options(windows={"max_chars": 60, "overlap_chars": 20})
    pieces = ner.pieces(record, made, training=False)
    values = [ner.parse(ner.answer(piece, made), made) for piece in pieces]
    found = ner.resolved(record, pieces, [None, *values[1:]], made)
    assert 0 < len(found) < len(record.entities)
    assert ner.resolved(record, pieces, [None] * len(pieces), made) is None


def test_of_two_overlapping_answers_of_neighbouring_windows_the_longer_stays():
    record = ner.Record(text="字" * 30 + "國立臺灣大學" + "字" * 30, entities=[])
    one, other = (ner.Record(text=record.text[a:b], entities=[], offset=a) for a, b in ((0, 34), (20, 66)))
    values = [[{"text": "國立臺灣", "type": "LOC"}], [{"text": "國立臺灣大學", "type": "ORG"}]]
    (found,) = ner.resolved(record, [one, other], values, OPTIONS)
    assert (found["text"], found["type"]) == ("國立臺灣大學", "ORG")


# Metrics


def random_spans(dice, n=30):
    found, place = [], 0
    while place < n - 4:
        place += dice.randrange(0, 4)
        end = place + dice.randrange(1, 4)
        if dice.random() < 0.6:
            name = dice.choice(["PER", "ORG", "LOC"])
            found.append({"start": place, "end": end, "type": name, "text": "字" * (end - place)})
        place = end
    return found


def corpus(seed, n=40):
    dice = random.Random(seed)
    golds = [random_spans(dice) for _ in range(n)]
    said = [[e for e in row if dice.random() < 0.7] if dice.random() < 0.6 else random_spans(dice) for row in golds]
    return golds, said


def as_tags(row, n=40):
    tags = ["O"] * n
    for entity in row:
        tags[entity["start"] : entity["end"]] = [f"I-{entity['type']}"] * (entity["end"] - entity["start"])
        tags[entity["start"]] = f"B-{entity['type']}"
    return tags


@pytest.mark.parametrize("seed", range(5))
def test_strict_scores_are_those_of_seqeval(seed):
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2

    golds, said = corpus(seed)
    found = ner.score(golds, said, OPTIONS)
    report = classification_report(
        [as_tags(r) for r in golds], [as_tags(r) for r in said], mode="strict", scheme=IOB2, output_dict=True
    )
    assert found.metrics["entity_f1"] == pytest.approx(report["micro avg"]["f1-score"])
    assert found.metrics["entity_precision"] == pytest.approx(report["micro avg"]["precision"])
    assert found.metrics["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    for name, row in found.per_class.items():
        assert row["f1"] == pytest.approx(report[name]["f1-score"]) and row["support"] == report[name]["support"]


@pytest.mark.parametrize("seed", range(5))
def test_strict_and_partial_scores_are_those_of_nervaluate(seed):
    from nervaluate import Evaluator

    golds, said = corpus(seed)
    as_dicts = [[[{"label": e["type"], "start": e["start"], "end": e["end"] - 1} for e in row] for row in rows]
                for rows in (golds, said)]  # fmt: skip
    overall = Evaluator(*as_dicts, tags=["PER", "ORG", "LOC"], loader="dict").evaluate()["overall"]
    found = ner.score(golds, said, OPTIONS).metrics
    assert found["entity_f1"] == pytest.approx(overall["strict"].f1)
    assert found["partial_f1"] == pytest.approx(overall["partial"].f1)


def test_an_entity_answered_twice_is_right_once():
    record = ner.Record(text="王小明到台北", entities=[{"start": 0, "end": 3, "type": "PER"}])
    twice = ner.gold(record) * 2
    scores = ner.score([ner.gold(record)], [twice], OPTIONS).metrics
    assert scores["entity_precision"] == 0.5 and scores["exact_match"] == 0.0


# Baseline and normalisation


def test_the_dictionary_takes_the_longest_match_and_the_most_frequent_type():
    train = [
        ner.Record(text="臺灣大學", entities=[{"start": 0, "end": 4, "type": "ORG"}]),
        ner.Record(text="臺灣", entities=[{"start": 0, "end": 2, "type": "LOC"}]),
        ner.Record(text="臺灣", entities=[{"start": 0, "end": 2, "type": "LOC"}]),
        ner.Record(text="臺灣", entities=[{"start": 0, "end": 2, "type": "ORG"}]),
    ]
    (found,) = ner.BASELINES["dictionary"](train, [ner.Record(text="在臺灣的臺灣大學", entities=[])], OPTIONS)
    assert [(e["text"], e["type"], e["start"]) for e in found] == [("臺灣", "LOC", 1), ("臺灣大學", "ORG", 4)]


@pytest.mark.parametrize(
    ("steps", "text", "words", "after"),
    [(["nfkc"], "㈱與ＴＳＭＣ合作", "ＴＳＭＣ", "TSMC"), (["opencc_s2twp"], "软件由鸿海制造", "鸿海", "鴻海")],
)
def test_entities_go_with_their_words_through_declared_steps(steps, text, words, after):
    start = text.index(words)
    record = ner.Record(text=text, entities=[{"start": start, "end": start + len(words), "type": "ORG"}])
    assert [e["text"] for e in ner.gold(ner.normalized(record, steps, ner.EXAMPLE_OPTIONS))] == [after]


def test_one_text_with_other_entities_is_told_without_a_label_to_decide_on(tmp_path):
    text = "王小明到台北"
    lines = {"train": [(text, [[0, 3, "PER"]]), (text, [[0, 2, "PER"]])], "test": [(text, [[1, 3, "PER"]])]}
    task = make_task(tmp_path / "task", {
        f"{name}.jsonl": jsonl(*({"text": text, "entities": found} for text, found in rows))
        for name, rows in lines.items()
    })  # fmt: skip
    definition = {
        "schema_version": 1,
        "name": "tiny",
        "task": {"type": "ner", "entity_types": ["PER"]},
        "data": {
            "files": {name: [f"data/raw/{name}.jsonl"] for name in lines},
            "fields": {"text": "text", "entities": "entities"},
        },
    }
    (task.folder / "task_definition.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    outcome = task.run("01_validate_data.py")
    (warning,) = outcome.problems("contradicting_duplicate", "warnings")
    assert warning["message"] == "same text as data/raw/train.jsonl:1, but other entities"
    assert "--decide" not in warning["hint"]
    assert outcome.problems("leakage")[0]["message"].endswith("and in test, with another answer")


@pytest.mark.parametrize(
    ("declared", "written", "said"),
    [
        ("exclusive", 0, None),
        ("exclusive", 1, "task.offsets: {end: inclusive, unit: code_points}"),
        ("inclusive", 0, "task.offsets: {end: exclusive, unit: code_points}"),
    ],
)
def test_offsets_by_which_mentions_are_cut_or_too_long_are_told(tmp_path, declared, written, said):
    example = yaml.safe_load((EXAMPLE / "answers.yaml").read_text(encoding="utf-8"))["task"]
    lines = (EXAMPLE / "news.jsonl").read_text(encoding="utf-8").splitlines()
    records = [ner.read_record(json.loads(line), ner.Options(**example))[0] for line in lines]
    rows = [
        {"text": r.text + "了", "entities": [{**e, "end": e["end"] - written} for e in r.entities]} for r in records
    ]
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)})
    definition = {
        "schema_version": 1,
        "name": "tiny",
        "task": {"type": "ner", "entity_types": example["entity_types"], "offsets": {"end": declared}},
        "data": {"files": {"all": ["data/raw/a.jsonl"]}, "fields": {"text": "text", "entities": "entities"}},
    }
    (task.folder / "task_definition.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    warnings = task.run("01_validate_data.py").problems("doubtful_offsets", "warnings")
    assert [said in warning["hint"] for warning in warnings] == [True] * bool(said)


def test_a_fault_of_a_tag_stands_on_the_line_of_its_token(tmp_path):
    good = "王 B-PER\n小 I-PER\n到 O\n台 B-LOC\n北 I-LOC\n\n"
    task = make_task(tmp_path / "task", {"a.conll": good + "她 O\n去 O\n高 I-LOC\n雄 I-PRE\n\n" + good + "李 B_PER\n"})
    definition = {
        "schema_version": 1,
        "name": "tiny",
        "task": {"type": "ner", "entity_types": ["PER", "LOC"]},
        "data": {"files": {"all": ["data/raw/a.conll"]}, "fields": {"tokens": "tokens", "tags": "tags"}},
    }
    (task.folder / "task_definition.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    problems = task.run("01_validate_data.py").summary["errors"]
    found = [(problem["code"], problem["line"]) for problem in problems]
    assert found == [("orphan_tag", 9), ("unknown_type", 10), ("orphan_tag", 10), ("bad_tag", 18)]


# The bundled example

EXAMPLE = Path(__file__).resolve().parent.parent / "templates/examples/ner"


def test_every_row_of_the_example_is_read_and_its_page_gives_the_true_counts():
    task = yaml.safe_load((EXAMPLE / "answers.yaml").read_text(encoding="utf-8"))["task"]
    lines = (EXAMPLE / "news.jsonl").read_text(encoding="utf-8").splitlines()
    read = [ner.read_record(json.loads(line), ner.Options(**task)) for line in lines]
    assert [faults for _, faults in read if faults] == []
    records, page = [record for record, _ in read], (EXAMPLE / "README.md").read_text(encoding="utf-8")
    assert len({record.text for record in records}) == len(records) == 80 and "80 句" in page
    for name, n in Counter(entity["type"] for record in records for entity in record.entities).items():
        assert f"| `{name}` | {n} |" in page
    assert f"{sum(not record.entities for record in records)} 句沒有實體" in page
    for record in records:
        record.text.encode("big5")  # Simplified characters are not in Big5
