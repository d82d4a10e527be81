"""Sentiment towards an entity, one at a time or all of a text at once: rows, faults, answers, metrics."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, matthews_corrcoef

from task_folder import jsonl, make_task
from tasklib.data import mentions
from tasklib.task_types import entity_sentiment as each
from tasklib.task_types import entity_sentiment_pairs as joint

SENTIMENTS = {"pos": "正面", "neg": "負面", "neu": "中性"}
EACH = each.Options(type="entity_sentiment", sentiments=SENTIMENTS)
FREE = each.Options(type="entity_sentiment", sentiments=SENTIMENTS, mention="free")
JOINT = joint.Options(type="entity_sentiment_pairs", sentiments=SENTIMENTS)
MERGED = joint.Options(type="entity_sentiment_pairs", sentiments=SENTIMENTS, repeats="merge")
TEXT = "螢幕很亮，但電池撐不過半天"


def codes(faults):
    return [(fault.code, fault.role) for fault in faults]


# One entity at a time


@pytest.mark.parametrize(
    ("text", "entity"), [(TEXT, "電池"), ("ＬＥＤ燈", "led"), ("The iPhone", " iphone "), ("a", "A")]
)
def test_an_entity_that_occurs_but_for_width_and_case_is_accepted(text, entity):
    record, faults = each.read_record({"text": text, "entity": entity, "sentiment": "neg"}, EACH)
    assert faults == [] and record.entity == entity.strip()


def test_an_entity_that_does_not_occur_is_a_fault_with_the_nearest_part_of_the_text():
    row = {"text": "宏川通訊毛利率下滑", "entity": "宏川通信", "sentiment": "neg"}
    record, faults = each.read_record(row, EACH)
    assert record is None and codes(faults) == [("entity_not_in_text", "entity")] and "'宏川通訊'" in faults[0].hint
    assert each.read_record(row, FREE)[1] == []
    assert codes(each.read_input({"text": "x", "entity": "y"}, EACH)[1]) == [("entity_not_in_text", "entity")]


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30), name=st.text(max_size=8))
def test_the_nearest_part_is_of_the_text_and_a_name_of_the_text_is_always_found(text, name):
    found = mentions.nearest(name, text)
    assert found is None or found in text
    assert mentions.occurs(name, f"{text}{name}") and mentions.position(name, text) <= max(len(text), 1) * 20


def test_an_unknown_sentiment_names_the_option_and_numbers_are_their_digits():
    _, faults = each.read_record({"text": TEXT, "entity": "電池", "sentiment": "positiv"}, EACH)
    assert codes(faults) == [("unknown_label", "sentiment")] and "task.sentiments" in faults[0].message
    numbers = each.Options(type="entity_sentiment", sentiments={"1": "正面", "-1": "負面"})
    assert each.read_record({"text": TEXT, "entity": "電池", "sentiment": -1}, numbers)[0].sentiment == "-1"


def test_rows_of_one_text_differ_by_their_entity_and_share_their_passage():
    a, b = each.EXAMPLES[:2]
    assert a.text == b.text and each.text_of(a) != each.text_of(b) and each.passage_of(a) == each.passage_of(b)
    assert each.prompt(a, EACH, "Judge.").splitlines()[-1] == a.entity


@pytest.mark.parametrize("module", [each, joint])
@pytest.mark.parametrize(
    "wrong",
    [
        {"sentiments": {"a": "x", "b": "Ｘ"}},
        {"sentiments": ["a"]},
        {"label_definitions": {"bad": "…"}},
        {"mention": "x"},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(module, wrong):
    name = module.__name__.rsplit(".", 1)[1]
    with pytest.raises(ValidationError):
        module.Options(**{"type": name, "sentiments": SENTIMENTS, **wrong})


@pytest.mark.parametrize("seed", range(10))
def test_the_metrics_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    names = list(SENTIMENTS)
    golds = [names[i] for i in rng.integers(0, 3, 60)]
    answered = [[*names, None][i] for i in rng.integers(0, 4, 60)]
    scores = each.score(golds, answered, EACH).metrics
    shown = [answer or "-" for answer in answered]
    assert scores["macro_f1"] == pytest.approx(f1_score(golds, shown, labels=names, average="macro", zero_division=0))
    assert scores["accuracy"] == pytest.approx(accuracy_score(golds, shown))
    assert scores["mcc"] == pytest.approx(matthews_corrcoef(golds, shown))
    assert scores["parse_rate"] == pytest.approx(np.mean([answer is not None for answer in answered]))
    parsed = [(g, s) for g, s in zip(golds, shown, strict=True) if s != "-"]
    again = each.score([g for g, _ in parsed], [s for _, s in parsed], EACH).metrics
    assert again["macro_recall"] == pytest.approx(balanced_accuracy_score(*zip(*parsed, strict=True)))


# All entities at once


def pair(entity, sentiment="pos"):
    return {"entity": entity, "sentiment": sentiment}


def read(pairs, options=JOINT, text=TEXT):
    return joint.read_record({"text": text, "pairs": pairs}, options)


def test_pairs_are_lists_or_their_json_text_under_several_names_and_are_put_in_order():
    expected = [pair("螢幕"), pair("電池", "neg")]
    for pairs in (
        expected,
        expected[::-1],
        json.dumps(expected),
        [{"aspect": "電池", "polarity": "neg", "start": 6}, {"target": "螢幕", "label": "pos"}],
        [{"value": " 螢幕 ", "tag": "pos"}, {"term": "電池", "sentiment": "neg"}],
    ):
        record, faults = read(pairs)
        assert faults == [] and record.pairs == expected
    assert read([])[0].pairs == [] and joint.answer(read([])[0], JOINT) == "[]"


BAD_PAIRS = {
    "missing": (None, "missing_field"),
    "no json": ("[{", "wrong_type"),
    "an object": ({"entity": "電池"}, "wrong_type"),
    "a number": ("3", "wrong_type"),
    "an element that is no object": (["電池"], "bad_pair"),
    "no entity": ([{"sentiment": "pos"}], "missing_field"),
    "no sentiment": ([{"entity": "電池"}], "missing_field"),
    "an unknown sentiment": ([pair("電池", "bad")], "unknown_label"),
    "not in the text": ([pair("相機")], "entity_not_in_text"),
    "twice": ([pair("電池"), pair("電池")], "duplicate_pair"),
    "two sentiments": ([pair("電池"), pair("電池", "neg")], "two_sentiments"),
}


@pytest.mark.parametrize(("pairs", "code"), BAD_PAIRS.values(), ids=BAD_PAIRS)
def test_what_is_wrong_with_pairs_is_a_fault_of_their_column(pairs, code):
    record, faults = read(pairs)
    assert record is None and codes(faults) == [(code, "pairs")] and faults[0].hint


def test_all_faults_of_a_list_come_at_once_with_the_number_of_the_pair():
    _, faults = read([pair("電池"), "x", pair("螢幕", "bad"), pair("相機")])
    assert [fault.code for fault in faults] == ["bad_pair", "unknown_label", "entity_not_in_text"]
    assert "pair 2" in faults[0].message and "pair 3" in faults[1].message


def test_repeated_mentions_may_be_merged_but_never_two_sentiments():
    assert read([pair("電池"), pair("電池")], MERGED)[0].pairs == [pair("電池")]
    assert codes(read([pair("電池"), pair("電池", "neg")], MERGED)[1]) == [("two_sentiments", "pairs")]


ANSWERS = {
    "plain": ('[{"entity":"電池","sentiment":"負面"}]', [pair("電池", "neg")]),
    "in a fence": ('```json\n[{"entity": "電池", "sentiment": "負面"}]\n```', [pair("電池", "neg")]),
    "nothing": ("[]", []),
    "twice": ('[{"entity":"A","sentiment":"正面"},{"entity":"ａ","sentiment":"正面"}]', [pair("A")]),
    "another sentiment": ('[{"entity":"電池","sentiment":"很差"}]', None),
    "no entity": ('[{"sentiment":"負面"}]', None),
    "torn": ('[{"entity":"電池","senti', None),
    "two lists": ("[] []", None),
    "an object": ('{"entity":"電池","sentiment":"負面"}', None),
}


@pytest.mark.parametrize(("text", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_one_whole_list_of_legal_pairs(text, expected):
    assert joint.parse(text, JOINT) == expected


def some_pairs(rng):
    names = rng.permutation(list("甲乙丙丁"))[: rng.integers(0, 4)]
    return [pair(str(name), list(SENTIMENTS)[rng.integers(3)]) for name in names]


@pytest.mark.parametrize("seed", range(10))
def test_pair_scores_are_those_of_scikit_learn_over_all_possible_pairs(seed):
    rng = np.random.default_rng(seed)
    golds = [some_pairs(rng) for _ in range(40)]
    answered = [None if rng.random() < 0.1 else some_pairs(rng) for _ in range(40)]
    every = [(entity, sentiment) for entity in "甲乙丙丁" for sentiment in SENTIMENTS]

    def table(rows, keys, key_of):
        return np.array([[key in {key_of(one) for one in row or []} for key in keys] for row in rows])

    both = [table(rows, every, lambda one: (one["entity"], one["sentiment"])) for rows in (golds, answered)]
    entities = [table(rows, "甲乙丙丁", lambda one: one["entity"]) for rows in (golds, answered)]
    scores = joint.score(golds, answered, JOINT)
    assert scores.metrics["pair_f1"] == pytest.approx(f1_score(*both, average="micro"))
    assert scores.metrics["entity_f1"] == pytest.approx(f1_score(*entities, average="micro"))
    assert scores.metrics["exact_match"] == pytest.approx(
        np.mean([a is not None and (x == y).all() for x, y, a in zip(*both, answered, strict=True)])
    )
    matched = entities[0] & entities[1]
    assert scores.metrics["sentiment_accuracy"] == pytest.approx((both[0] & both[1]).sum() / matched.sum())
    for number, sentiment in enumerate(SENTIMENTS):
        columns = [values[:, number::3] for values in both]
        assert scores.per_class[sentiment]["f1"] == pytest.approx(f1_score(*columns, average="micro"))
        assert scores.per_class[sentiment]["support"] == columns[0].sum()


def test_the_dictionary_takes_the_longest_known_entity_with_its_usual_sentiment():
    train = [
        joint.Record(text="電池好", pairs=[pair("電池")]),
        joint.Record(text="電池差", pairs=[pair("電池", "neg")]),
        joint.Record(text="電池很差", pairs=[pair("電池", "neg")]),
        joint.Record(text="電池蓋緊", pairs=[pair("電池蓋")]),
    ]
    rows = [joint.Record(text=text, pairs=[]) for text in ("電池蓋不緊", "電池和ＵＳＢ", "沒有")]
    assert joint.BASELINES["dictionary"](train, rows, JOINT) == [[pair("電池蓋")], [pair("電池", "neg")], []]


# Through the stages

DEFINITION = {"sentiments": {"pos": "positive", "neg": "negative"}}
NAMES = [f"第{number}家" for number in range(24)]


def rows_with_lists():
    return jsonl(
        *(
            {"title": f"{a}勝過{b}，編號{number}", "found": [{"name": a, "mood": "pos"}, {"name": b, "mood": "neg"}]}
            for number, (a, b) in enumerate(zip(NAMES, reversed(NAMES), strict=True))
        )
    )


def test_a_list_in_each_row_becomes_a_task_whose_texts_stay_on_one_side(tmp_path):
    task = make_task(
        tmp_path / "t",
        {"a.jsonl": rows_with_lists()},
        task={"type": "entity_sentiment", **DEFINITION, "labels": None},
        data={
            "files": {"all": [{"path": "data/raw/a.jsonl", "explode": {"column": "found"}}]},
            "fields": {"text": "title", "entity": "name", "sentiment": "mood"},
        },
    )
    _without_labels(task)
    task.ok("01_validate_data.py")
    task.ok("02_convert_format.py")
    rows = {split: task.rows(split) for split in ("train", "validation", "test")}
    assert sum(map(len, rows.values())) == 48
    texts = {split: {row["record"]["text"] for row in found} for split, found in rows.items()}
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["validation"]
    assert any(row["id"].endswith("#2") for row in rows["train"])


def _without_labels(task):
    import yaml

    path = task.folder / "task_definition.yaml"
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    definition["task"] = {key: value for key, value in definition["task"].items() if key != "labels"}
    path.write_text(yaml.safe_dump(definition, allow_unicode=True), encoding="utf-8")


def test_decoding_by_likelihood_is_refused_for_open_answers(tmp_path):
    task = make_task(
        tmp_path / "t",
        {"a.jsonl": rows_with_lists()},
        task={"type": "entity_sentiment_pairs", **DEFINITION},
        data={"fields": {"text": "title", "pairs": "found"}},
        evaluation={"decoding": "score"},
    )
    _without_labels(task)
    outcome = task.run("01_validate_data.py")
    assert outcome.code == 2 and [p["field"] for p in outcome.summary["errors"]] == ["evaluation.decoding"]
