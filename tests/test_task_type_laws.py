"""Laws that every file of tasklib/task_types/ keeps; a new task type is tested here without a line of its own."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tasklib import schema, task_types
from tasklib.data import answers
from tasklib.data.answers import Fault, Scores
from tasklib.documents import parse_yaml
from tasklib.task_types import classification

NAMES = task_types.names()
MODULES = [task_types.load(name) for name in NAMES]
every_type = pytest.mark.parametrize("module", MODULES, ids=NAMES)

MODELS = ("Options", "Record")
VALUES = ("FIELDS", "INPUT_FIELDS", "METHODS", "DECODINGS", "PRIMARY_METRIC", "PRIMARY_METRICS", "BASELINES",
          "EXAMPLES", "EXAMPLE_OPTIONS")  # fmt: skip
FUNCTIONS = ("read_record", "read_input", "normalized", "default_instruction", "prompt", "answer", "gold", "text_of",
             "label_set", "parse", "count", "score_counts", "class_ratios", "per_class", "score",
             "reward")  # fmt: skip

# What a model may write instead of an answer.
NASTY = ["", " ", "\n", "。", "\x00", "\x00\x1b[31m\x7f", "\ufeff", "\ud800", "🙂", "🙂" * 5_000, "x" * 100_000,
         "我不知道", "ＮＡ", "null", "None", "NaN", "{}", "[]", '{"label": null}', '{"label": [', "<|im_end|>",
         "<think>\n", "</s>", "A" * 50 + "\u0301", "\u202eright to left", "¯\\_(ツ)_/¯", "%s %d {0} {label} $x",
         "'; DROP TABLE rows; --", "../../etc/passwd", "1e999", "\t\t\r\n", "？？？", "((((((((((", "\\",
         "答案："]  # fmt: skip


def golds(module):
    return [module.gold(record) for record in module.EXAMPLES]


def is_compared(module):
    """Whether a prediction is no answer but the values of a row's own ones."""
    return "compare" in module.DECODINGS


def right(module):
    """The prediction of each example that is right: its gold answer, parsed; where answers are compared, the values of
    a row's candidates, of which the first should have the largest."""
    if is_compared(module):
        return [[-float(place) for place in range(len(module.candidates(record)))] for record in module.EXAMPLES]
    return [read(module, record, module.answer(record, module.EXAMPLE_OPTIONS)) for record in module.EXAMPLES]


def read(module, record, text):
    """The prediction that a generated text is, for one row."""
    options = module.EXAMPLE_OPTIONS
    return module.resolved(record, [record], [module.parse(text, options)], options)


def all_read(module, text):
    return [read(module, record, text) for record in module.EXAMPLES]


def is_gold(module, parsed, record):
    """Whether a parsed answer is the gold one; where several texts are right, gold is the list of them."""
    gold = module.gold(record)
    return parsed == gold or (isinstance(parsed, str) and isinstance(gold, list) and parsed in gold)


def raw_rows(module, record):
    """(form, raw row) for each form that can hold this record; a type of one form has fields named as its roles."""
    if not hasattr(module, "raw_row"):
        assert len(module.FORMS) == 1
        return [(module.FORMS[0], {role: getattr(record, role) for role in module.FIELDS})]
    rows = [(form, module.raw_row(record, form)) for form in module.FORMS]
    return [(form, row) for form, row in rows if row is not None]


def without_answer(module, row):
    return {role: value for role, value in row.items() if role in module.INPUT_FIELDS}


def scored(module, predictions, records=None):
    """Scores of predictions over the module's own examples."""
    records = module.EXAMPLES if records is None else records
    return module.score([module.gold(record) for record in records], predictions, module.EXAMPLE_OPTIONS)


def values_of(scores):
    """Every number of a Scores object, as JSON must hold it."""
    return json.loads(json.dumps([scores.metrics, scores.per_class], allow_nan=False))


def test_there_is_at_least_one_task_type_and_classification_is_one():
    assert "classification" in NAMES and len(NAMES) == len(set(NAMES)) >= 1


def test_a_name_that_is_no_file_is_no_task_type():
    for name in ("", "nothing", "__init__", "../answers", "answers"):
        with pytest.raises(KeyError):
            task_types.load(name)


@every_type
def test_a_task_type_offers_every_name_of_the_contract_with_a_docstring(module):
    for name in MODELS:
        assert issubclass(getattr(module, name), BaseModel), name
    assert all(hasattr(module, name) for name in VALUES), [name for name in VALUES if not hasattr(module, name)]
    for name in FUNCTIONS:
        assert callable(getattr(module, name)), name
    assert module.__doc__


@every_type
def test_what_a_task_type_allows_is_known_to_the_rest_of_the_project(module):
    decodings = set(schema.EvaluationSpec.model_fields["decoding"].annotation.__args__)
    assert module.METHODS and set(module.METHODS) <= set(schema.METHODS)
    assert module.DECODINGS and set(module.DECODINGS) <= decodings
    assert "score" not in module.DECODINGS or module.label_set(module.EXAMPLE_OPTIONS)
    assert module.BASELINES and all(callable(baseline) for baseline in module.BASELINES.values())
    roles = {role for form in module.FORMS for role in (*form.required, *form.optional)}
    assert module.FORMS and module.FORMS[0].required == module.FIELDS and set(module.INPUT_FIELDS) <= roles
    with_input = [form for form in module.FORMS if set(form.required) & set(module.INPUT_FIELDS)]
    assert with_input == list(module.FORMS) or hasattr(module, "raw_row")  # answers or tags may hold the question
    assert module.PRIMARY_METRIC in module.PRIMARY_METRICS
    assert set(module.INPUT_FIELDS) & set(module.FIELDS)


@every_type
@pytest.mark.parametrize("model", ["Options", "Record"])
def test_models_are_strict_frozen_and_know_no_other_key(module, model):
    example = module.EXAMPLE_OPTIONS if model == "Options" else module.EXAMPLES[0]
    values = example.model_dump()
    assert getattr(module, model)(**values) == example
    with pytest.raises(ValidationError):
        getattr(module, model)(**values, surprise=1)
    with pytest.raises(ValidationError):
        example.__setattr__(next(iter(values)), next(iter(values.values())))


@every_type
def test_the_examples_are_many_and_different_and_cover_every_label(module):
    texts = [module.text_of(record) for record in module.EXAMPLES]
    assert len(texts) == len(set(texts)) >= 5
    labels = module.label_set(module.EXAMPLE_OPTIONS)
    if labels is not None:
        assert set(golds(module)) == set(labels) and len(labels) >= 2


@every_type
def test_labels_and_their_answers_are_distinct(module):
    labels = module.label_set(module.EXAMPLE_OPTIONS)
    if labels is None:
        assert "score" not in module.DECODINGS
    else:
        assert len(set(labels.values())) == len(labels) >= 2
        assert all(answer.strip() and label.strip() for label, answer in labels.items())


@every_type
def test_the_examples_options_stand_in_a_definition_as_they_are(module):
    text = json.dumps(
        {
            "schema_version": 1,
            "name": "demo",
            "task": module.EXAMPLE_OPTIONS.model_dump(),
            "data": {"files": {"all": ["a.csv"]}, "fields": {role: role for role in module.FIELDS}},
        }
    )
    definition = schema.check_definition(parse_yaml(text, "task_definition.yaml"))
    assert definition.task == module.EXAMPLE_OPTIONS
    assert definition.task_type is module and definition.primary_metric == module.PRIMARY_METRIC


# Answers


@every_type
def test_every_gold_answer_parses_back_to_the_gold(module):
    options = module.EXAMPLE_OPTIONS
    for record in module.EXAMPLES:
        answer = module.answer(record, options)
        assert answer.strip()
        for written in (answer, f" {answer}\n"):
            assert is_gold(module, read(module, record, written), record), written


@every_type
def test_perfect_predictions_score_one_and_get_full_reward(module):
    scores = scored(module, right(module))
    assert isinstance(scores, Scores)
    assert all(scores.metrics[name] == 1.0 for name in module.PRIMARY_METRICS)
    assert scores.undefined == []
    for record in module.EXAMPLES:
        assert module.reward(record, module.answer(record, module.EXAMPLE_OPTIONS), module.EXAMPLE_OPTIONS) == 1.0


@every_type
@pytest.mark.parametrize("text", NASTY, ids=lambda text: ascii(text)[:24])
def test_nonsense_never_raises_and_never_scores_above_the_worst_real_answer(module, text):
    options = module.EXAMPLE_OPTIONS
    answers = [module.answer(record, options) for record in module.EXAMPLES]
    if text in answers:  # `[]` is what a row without anything to find is answered with
        return
    score = scored(module, all_read(module, text)).metrics[module.PRIMARY_METRIC]
    worst = min(scored(module, all_read(module, answer)).metrics[module.PRIMARY_METRIC] for answer in answers)
    assert score <= worst
    for record in module.EXAMPLES:
        rewards = [module.reward(record, answer, options) for answer in answers]
        assert 0 <= module.reward(record, text, options) <= min(rewards)


@every_type
@settings(max_examples=200, deadline=None)
@given(text=st.text(), number=st.integers(0, 1000))
def test_any_text_can_be_parsed_scored_and_rewarded(module, text, number):
    options, record = module.EXAMPLE_OPTIONS, module.EXAMPLES[number % len(module.EXAMPLES)]
    reward = module.reward(record, text, options)
    assert 0 <= reward <= 1 and math.isfinite(reward)
    predictions = all_read(module, text)
    values = values_of(scored(module, predictions))
    unbounded = getattr(module, "UNBOUNDED_METRICS", ())
    assert module.PRIMARY_METRIC not in unbounded and set(unbounded) < set(values[0])
    bounded = [value for name, value in values[0].items() if name not in unbounded]
    assert bounded and all(value is None or 0 <= value <= 1 for value in bounded)
    labels = module.label_set(options)
    if labels is not None:
        assert predictions[0] is None or predictions[0] in labels


@every_type
def test_an_answer_wrapped_in_other_text_is_never_taken_for_another_answer(module):
    options = module.EXAMPLE_OPTIONS
    for record in module.EXAMPLES:
        for frame in ("{}\n", "答案：{}", "Answer: {}.", "\u3000{}！", "**{}**", '{{"answer": "{}"}}'):
            text = frame.format(module.answer(record, options))
            parsed = read(module, record, text)
            is_open = isinstance(module.gold(record), list) or is_compared(module)
            if is_open and parsed == text.strip():  # any text is an answer of its own
                assert not any(is_gold(module, parsed, other) for other in module.EXAMPLES if other != record)
            else:
                assert parsed is None or is_gold(module, parsed, record), text


# Prompts


@every_type
def test_the_prompt_is_the_same_whatever_the_gold_answer_is(module):
    """A row without its answer is asked as the row with it; and no other answer in the record changes the question."""
    options = module.EXAMPLE_OPTIONS
    for record in module.EXAMPLES:
        turns = module.history(record)
        for _, row in raw_rows(module, record):
            if not without_answer(module, row):
                continue
            asked, faults = module.read_input(without_answer(module, row), options)
            assert faults == []
            hidden = [name for name, value in asked.model_dump().items() if value != getattr(record, name)]
            assert hidden or "messages" in row or not module.gold(record)
            prompts, histories = {module.prompt(asked, options, "Judge.")}, [module.history(asked)]
            for other in module.EXAMPLES:
                twin = record.model_copy(update={name: getattr(other, name) for name in hidden})
                prompts.add(module.prompt(twin, options, "Judge."))
                histories.append(module.history(twin))
            assert prompts == {module.prompt(record, options, "Judge.")}
            assert all(history == turns for history in histories)


@every_type
def test_the_prompt_holds_the_instruction_and_the_whole_text(module):
    for record in module.EXAMPLES:
        prompt = module.prompt(record, module.EXAMPLE_OPTIONS, "Judge {this} $now %s.")
        assert "Judge {this} $now %s." in prompt
        text = module.passage_of(record) if is_compared(module) else module.text_of(record)  # without the answers
        if module.history(record):  # then the text of the row is that of the whole conversation
            said = "\n".join([*(turn["content"] for turn in module.history(record)), prompt])
            assert all(line in said for line in text.splitlines())
        else:
            assert text in prompt


@every_type
@pytest.mark.parametrize("language", ["zh-TW", "en"])
def test_the_default_instruction_names_every_answer_and_comes_in_both_languages(module, language):
    text = module.default_instruction(module.EXAMPLE_OPTIONS, language)
    if not text:  # rows that ask for themselves need none, where any text may be the answer
        assert module.label_set(module.EXAMPLE_OPTIONS) is None
        assert {module.default_instruction(module.EXAMPLE_OPTIONS, other) for other in ("zh-TW", "en")} == {""}
        return
    assert text.strip()
    for answer in (module.label_set(module.EXAMPLE_OPTIONS) or {}).values():
        assert answer in text
    assert module.default_instruction(module.EXAMPLE_OPTIONS, "zh-TW") != module.default_instruction(
        module.EXAMPLE_OPTIONS, "en"
    )


# Reading


@every_type
def test_every_example_is_read_back_from_a_raw_row_of_every_form(module):
    used = set()
    for record in module.EXAMPLES:
        rows = raw_rows(module, record)
        assert rows
        for form, row in rows:
            assert set(form.required) <= set(row) <= {*form.required, *form.optional}
            assert module.read_record(row, module.EXAMPLE_OPTIONS) == (record, [])
            used.add(form)
    assert used == set(module.FORMS)


@every_type
@pytest.mark.parametrize("bad", [None, "", "  ", 1.5, True], ids=repr)
def test_a_bad_value_in_any_field_is_a_fault_of_that_field_and_gives_no_record(module, bad):
    examples = {form: row for record in module.EXAMPLES for form, row in raw_rows(module, record)}
    for form, good in examples.items():
        for role in form.required:
            record, faults = module.read_record({**good, role: bad}, module.EXAMPLE_OPTIONS)
            assert record is None and [fault.role for fault in faults] == [role]
            assert isinstance(faults[0], Fault) and faults[0].code and faults[0].message and faults[0].hint
        for role in (role for role in form.required if role in module.INPUT_FIELDS):
            record, faults = module.read_input({**without_answer(module, good), role: bad}, module.EXAMPLE_OPTIONS)
            assert record is None and [fault.role for fault in faults] == [role]


@every_type
def test_all_faults_of_a_row_come_at_once(module):
    record, faults = module.read_record({}, module.EXAMPLE_OPTIONS)
    assert record is None and {fault.role for fault in faults} == set(module.FIELDS)


@every_type
def test_rows_that_contradict_each_other_have_words_where_nobody_can_decide_on_one_label(module):
    if "label" not in module.FIELDS:
        message, hint = module.CONTRADICTION
        assert "{other}" in message and hint


@every_type
def test_without_declared_steps_a_record_is_not_changed(module):
    for record in module.EXAMPLES:
        assert module.normalized(record, [], module.EXAMPLE_OPTIONS) == record
        changed = module.normalized(record, ["nfkc"], module.EXAMPLE_OPTIONS)
        assert module.normalized(changed, ["nfkc"], module.EXAMPLE_OPTIONS) == changed
        if module.label_set(module.EXAMPLE_OPTIONS) is not None:  # labels are names; open answers are texts too
            assert module.gold(changed) == module.gold(record)


# Metrics


@every_type
@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_rows_does_not_matter(module, seed):
    options, shuffler = module.EXAMPLE_OPTIONS, random.Random(seed)
    pairs = [(g, shuffler.choice([*right(module), None])) for g in golds(module) * 3]
    before = module.score([g for g, _ in pairs], [p for _, p in pairs], options)
    shuffler.shuffle(pairs)
    after = module.score([g for g, _ in pairs], [p for _, p in pairs], options)
    assert (after.per_class, after.undefined) == (before.per_class, before.undefined)
    assert after.metrics == pytest.approx(before.metrics, abs=1e-12)  # sums of fractions are rounded


@every_type
def test_a_wrong_or_missing_answer_more_never_raises_the_primary_metric(module):
    perfect = right(module)
    for position, record in enumerate(module.EXAMPLES):
        for wrong in [other for other in (None, *perfect) if other != perfect[position]]:
            predictions = [*perfect[:position], wrong, *perfect[position + 1 :]]
            value = scored(module, predictions).metrics[module.PRIMARY_METRIC]
            alone = [scored(module, [answer], [record]).metrics for answer in (perfect[position], wrong)]
            if any(metrics[module.PRIMARY_METRIC] is not None for metrics in alone):
                assert value < 1.0
            else:  # right or wrong, the metric looks away from such a row: another metric has to see the difference
                assert value == 1.0 and alone[0] != alone[1]


@every_type
def test_counts_of_rows_add_up_to_the_metrics_of_the_corpus(module):
    options = module.EXAMPLE_OPTIONS
    predictions = [*right(module)[1:], None]
    counts = answers.dense(module.count(golds(module), predictions, options))
    assert len(counts) == len(module.EXAMPLES) and np.isfinite(counts).all()
    totals = module.score_counts(counts.sum(0), options)
    scores = scored(module, predictions)
    assert set(totals) == set(scores.metrics) and len(totals) > 1
    for name, value in scores.metrics.items():
        assert answers.or_none(totals[name]) == pytest.approx(value)
    many = module.score_counts(np.stack([counts.sum(0), counts[:1].sum(0)]), options)
    assert all(values.shape == (2,) for values in many.values())
    assert many[module.PRIMARY_METRIC][0] == pytest.approx(float(totals[module.PRIMARY_METRIC]))


@every_type
def test_ratios_of_the_classes_are_the_numbers_of_the_table_and_keep_their_order(module):
    """`class_ratios` is what gets intervals: numerators and denominators of summed counts, one for each class."""
    options = module.EXAMPLE_OPTIONS
    counts = answers.dense(module.count(golds(module), [*right(module)[1:], None], options))
    table = module.per_class(counts.sum(0), options)
    one, many = module.class_ratios(counts.sum(0), options), module.class_ratios(np.stack([counts.sum(0)] * 3), options)
    assert set(one) == set(many) and bool(one) == bool(table)
    assert one or module.label_set(options) is None  # open answers may have no classes
    for name, (numerators, denominators) in one.items():
        assert [columns[name] for columns in table.values()] == [
            answers.or_none(value) for value in answers.ratio(numerators, denominators)
        ]
        assert many[name][0].shape == many[name][1].shape == (3, len(table))


UNDEFINED = {
    "no rows": lambda module: ([], []),
    "nothing parsed": lambda module: (golds(module), [None] * len(golds(module))),
    "one row": lambda module: (golds(module)[:1], right(module)[:1]),
    "one row, nothing parsed": lambda module: (golds(module)[:1], [None]),
}


@every_type
@pytest.mark.parametrize("case", UNDEFINED)
def test_what_is_undefined_is_null_and_named_and_never_nan(module, case):
    scores = module.score(*UNDEFINED[case](module), module.EXAMPLE_OPTIONS)
    values_of(scores)  # refuses NaN
    assert sorted(scores.undefined) == sorted(name for name, value in scores.metrics.items() if value is None)
    assert case != "no rows" or module.PRIMARY_METRIC in scores.undefined
    assert case == "no rows" or scores.metrics[module.PRIMARY_METRIC] is not None


@every_type
def test_answers_that_could_not_be_parsed_count_as_wrong_not_as_absent(module):
    half = [answer if position % 2 else None for position, answer in enumerate(right(module))]
    assert scored(module, half).metrics[module.PRIMARY_METRIC] < 1.0
    assert scored(module, [None] * len(half)).metrics[module.PRIMARY_METRIC] == 0.0


# Classification: what its parser takes for an answer


def options(*answers):
    return classification.Options(type="classification", labels={f"l{n}": a for n, a in enumerate(answers)})


PARSED = {
    "exact": ("正面", ("正面", "負面"), "l0"),
    "in quotes": ("「正面」。", ("正面", "負面"), "l0"),
    "full width": ("ＰＯＳＩＴＩＶＥ", ("positive", "negative"), "l0"),
    "in a sentence": ("這則新聞是負面的。", ("正面", "負面"), "l1"),
    "beside Latin letters": ("答案是positive的", ("positive", "negative"), "l0"),
    "after a colon": ("sentiment:negative", ("positive", "negative"), "l1"),
    "said twice": ("正面，我確定是正面", ("正面", "負面"), "l0"),
    "two answers": ("正面或負面", ("正面", "負面"), None),
    "the longer of two": ("我認為不是正面", ("正面", "不是正面"), "l1"),
    "both of them": ("不是正面而是正面", ("正面", "不是正面"), None),
    "a word inside a word": ("I cannot know", ("yes", "no"), None),
    "a word beside such a word": ("no, I cannot", ("yes", "no"), "l1"),
    "a digit inside a number": ("in 2024", ("2", "4"), None),
    "a digit of its own": ("class 4.", ("2", "4"), "l1"),
    "ten is not one": ("10", ("1", "2"), None),
    "another word form": ("positively", ("positive", "negative"), None),
}


@pytest.mark.parametrize(("text", "answers", "label"), PARSED.values(), ids=PARSED)
def test_a_generated_text_names_a_label_only_when_it_says_exactly_one_of_them(text, answers, label):
    assert classification.parse(text, options(*answers)) == label


@pytest.mark.parametrize("answers", [("A", "a"), ("1", "-1"), ("Ａ", "A"), ("好。", "好"), ("C", "C#")])
def test_answers_that_could_not_be_told_apart_are_refused_by_name(answers):
    with pytest.raises(ValidationError) as error:
        options("other", *answers)
    assert all(repr(answer) in str(error.value) for answer in answers)


def test_a_list_of_labels_means_that_the_model_writes_them_as_they_stand():
    made = classification.Options(type="classification", labels=["up", "down"])
    assert classification.label_set(made) == {"up": "up", "down": "down"}
    with pytest.raises(ValidationError, match="twice"):
        classification.Options(type="classification", labels=["up", "up"])
