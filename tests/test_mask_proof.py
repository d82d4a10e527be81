"""The mask proof looks at what the collator yields: each planted fault is caught under its own code, with its line."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

import small_tokenizers
from processed_rows import LONG, make_config, make_definition, make_row, problems_of
from tasklib.model import builtin, prompts, tokenized
from tasklib.training import mask_proof

TEXTS = ("獲利成長", LONG[:90], "虧損", "The margin\tfell.")


@pytest.fixture(scope="module")
def smollm2():
    return AutoTokenizer.from_pretrained(builtin.folder("builtin:smollm2-135m"))


@pytest.fixture(params=["smollm2", "byte level", "sentencepiece-like"])
def tokenizer(request, smollm2):
    """Three kinds; the pad token of the first and the last is the one that ends a turn."""
    makers = {"byte level": small_tokenizers.byte_level, "sentencepiece-like": small_tokenizers.sentencepiece_like}
    return makers[request.param]() if request.param in makers else smollm2


def make_rows():
    definition = make_definition()
    return [make_row(definition, text, "pn"[i % 2], line=i + 2) for i, text in enumerate(TEXTS)]


def encoded(tokenizer, rows):
    return tokenized.encode(tokenizer, make_definition(), make_config(512), rows).examples


def collator(tokenizer, **options):
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    return DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id, **options)


def prove(tokenizer, rows, examples, collate=None):
    return mask_proof.prove(tokenizer, make_definition(), rows, examples, collate or collator(tokenizer))


def codes(tokenizer, rows, examples, collate=None):
    """(code, line) of every problem found; all of them name the file and say what to do."""
    found = problems_of(lambda: prove(tokenizer, rows, examples, collate))
    assert all(problem.file == "a.csv" and problem.hint and problem.message for problem in found)
    return [(problem.code, problem.line) for problem in found]


def with_labels(examples, change):
    """The examples with `change(labels, first trained position)` as labels."""
    return [
        {**e, "labels": change(list(e["labels"]), next(i for i, label in enumerate(e["labels"]) if label >= 0), e)}
        for e in examples
    ]


def test_rows_as_they_should_be_are_proved_and_shown(tokenizer):
    rows = make_rows()
    examples = encoded(tokenizer, rows)
    proof = prove(tokenizer, rows, examples)
    assert (proof.n_rows, [s.which for s in proof.samples]) == (4, ["first", "longest", "shortest"])
    n_trained = sum(label != -100 for e in examples for label in e["labels"])
    assert proof.trained_share == n_trained / sum(len(e["input_ids"]) for e in examples)
    assert [(s.file, s.line) for s in proof.samples] == [("a.csv", 2), ("a.csv", 3), ("a.csv", 4)]
    end = prompts.end_of_turn(tokenizer, rows[0]["prompt"]).replace("\n", "⏎")
    assert [s.trained for s in proof.samples] == ["正面" + end, "不是正面" + end, "正面" + end]
    header = "<|im_start|>assistant⏎" if "im_end" in end else "###·Response:⏎"
    assert all(s.masked_end.endswith(header) for s in proof.samples)
    log = "\n".join(proof.lines())
    assert "4 rows" in log and f"{header}⟦正面{end}⟧" in log and "a.csv:3" in log
    assert json.loads(json.dumps(proof.to_json()))["samples"][0]["trained"] == "正面" + end


def test_many_rows_are_proved_over_several_batches(smollm2):
    rows = make_rows() * 20
    assert prove(smollm2, rows, encoded(smollm2, rows)).n_rows == 80


def test_one_row_is_shown_once(smollm2):
    rows = make_rows()[:1]
    assert [s.which for s in prove(smollm2, rows, encoded(smollm2, rows)).samples] == ["first"]


def test_a_shortened_row_is_proved_too(smollm2):
    definition = make_definition(shorten="keep_start")
    rows = [make_row(definition, LONG)]
    examples = tokenized.encode(smollm2, definition, make_config(80), rows).examples
    assert "…<|im_end|>" in prove(smollm2, rows, examples).samples[0].masked_end


def test_a_trained_prompt_is_caught(tokenizer):
    rows = make_rows()
    examples = encoded(tokenizer, rows)
    examples[2]["labels"] = list(examples[2]["input_ids"])
    assert codes(tokenizer, rows, examples) == [("prompt_trained", 4)]


def test_one_trained_token_of_the_prompt_is_caught(tokenizer):
    rows = make_rows()
    first_too = with_labels(encoded(tokenizer, rows), lambda labels, start, e: [e["input_ids"][0], *labels[1:]])
    assert codes(tokenizer, rows, first_too) == [("prompt_trained", line) for line in (2, 3, 4, 5)]


def test_labels_that_the_collator_makes_itself_train_the_prompt(tokenizer):
    rows = make_rows()
    examples = [{"input_ids": example["input_ids"]} for example in encoded(tokenizer, rows)]
    assert codes(tokenizer, rows, examples) == [("prompt_trained", line) for line in (2, 3, 4, 5)]


def test_a_row_without_a_trained_token_is_caught(tokenizer):
    rows = make_rows()
    examples = encoded(tokenizer, rows)
    examples[1]["labels"] = [-100] * len(examples[1]["labels"])
    assert codes(tokenizer, rows, examples) == [("no_trained_token", 3)]


def test_a_masked_end_of_turn_is_caught(tokenizer):
    rows = make_rows()
    n_end = len(prompts.token_ids(tokenizer, prompts.end_of_turn(tokenizer, rows[0]["prompt"])))
    masked = with_labels(encoded(tokenizer, rows), lambda labels, start, e: labels[:-n_end] + [-100] * n_end)
    assert codes(tokenizer, rows, masked) == [("end_of_turn_not_trained", line) for line in (2, 3, 4, 5)]


def test_a_collator_that_masks_the_pad_token_everywhere_masks_the_end_of_turn(tokenizer):
    """As transformers' DataCollatorForLanguageModeling: it harms where pad and end of turn are one token."""

    def collate(examples):
        batch = collator(tokenizer)(examples)
        batch["labels"][batch["input_ids"] == tokenizer.pad_token_id] = -100
        return batch

    rows = make_rows()
    examples = encoded(tokenizer, rows)
    if tokenizer.pad_token == tokenizer.eos_token:
        wanted = [("end_of_turn_not_trained", line) for line in (2, 3, 4, 5)]
        assert codes(tokenizer, rows, examples, collate) == wanted
    else:
        assert prove(tokenizer, rows, examples, collate)


def test_a_mask_that_is_one_token_early_trains_the_prompt_and_not_the_end(tokenizer):
    rows = make_rows()
    early = with_labels(
        encoded(tokenizer, rows),
        lambda labels, start, e: [-100] * (start - 1) + e["input_ids"][start - 1 : -1] + [-100],
    )
    found = codes(tokenizer, rows, early)
    assert found == [(code, n) for n in (2, 3, 4, 5) for code in ("prompt_trained", "end_of_turn_not_trained")]


def test_a_mask_that_is_one_token_late_cuts_the_answer(tokenizer):
    rows = make_rows()
    late = with_labels(encoded(tokenizer, rows), lambda labels, start, e: [-100] * (start + 1) + labels[start + 1 :])
    assert codes(tokenizer, rows, late) == [("answer_cut", line) for line in (2, 3, 4, 5)]


def test_labels_that_were_shifted_already_are_caught(tokenizer):
    rows = make_rows()
    shifted = with_labels(encoded(tokenizer, rows), lambda labels, start, e: [*labels[1:], -100])
    assert codes(tokenizer, rows, shifted) == [("labels_shifted", line) for line in (2, 3, 4, 5)]


def test_a_cut_answer_is_caught(tokenizer):
    """As a trainer's own truncation does it."""
    rows = make_rows()
    examples = encoded(tokenizer, rows)
    limit = len(examples[0]["input_ids"])

    def collate(batch):
        return collator(tokenizer)([{key: values[:limit] for key, values in e.items()} for e in batch])

    assert ("no_trained_token", 3) in codes(tokenizer, rows, examples, collate)
    n_end = len(prompts.token_ids(tokenizer, prompts.end_of_turn(tokenizer, rows[0]["prompt"])))
    for n_lost in (1, n_end, n_end + 1):
        cut = [{key: values[:-n_lost] for key, values in e.items()} for e in examples]
        is_left = [max(example["labels"]) >= 0 for example in cut]  # an answer may be a single token
        wanted = ["answer_cut" if left else "no_trained_token" for left in is_left]
        assert codes(tokenizer, rows, cut) == list(zip(wanted, (2, 3, 4, 5), strict=True))
        assert "answer_cut" in wanted


def test_an_answer_of_another_row_is_caught(tokenizer):
    rows = make_rows()
    examples = encoded(tokenizer, rows)
    found = codes(tokenizer, rows, [examples[1], examples[0], *examples[2:]])
    assert [line for _, line in found] == [2, 3] and found[1][0] == "answer_cut"


def test_trained_padding_is_caught(tokenizer):
    def collate(examples):
        batch = collator(tokenizer)(examples)
        batch["labels"][batch["attention_mask"] == 0] = tokenizer.pad_token_id
        return batch

    rows = make_rows()
    found = codes(tokenizer, rows, encoded(tokenizer, rows), collate)
    assert found == [("padding_trained", line) for line in (2, 4, 5)]  # line 3 is the longest: it has no padding


def test_an_answer_that_the_tokenizer_has_no_tokens_for_is_caught():
    tokenizer, rows = small_tokenizers.words_only(), make_rows()[:2]
    assert codes(tokenizer, rows, encoded(tokenizer, rows)) == [("answer_lost", 2), ("answer_lost", 3)]


@pytest.mark.parametrize("multiple", [None, 64])
def test_a_batch_without_padding_is_read_row_by_row(tokenizer, multiple):
    rows = make_rows()
    examples = encoded(tokenizer, rows)
    collate = collator(tokenizer, padding_free=True, pad_to_multiple_of=multiple)
    assert "attention_mask" not in collate(examples)
    assert prove(tokenizer, rows, examples, collate) == prove(tokenizer, rows, examples)
    examples[2]["labels"] = [-100] * len(examples[2]["labels"])
    assert codes(tokenizer, rows, examples, collate) == [("no_trained_token", 4)]


def test_trained_padding_at_the_end_of_a_flat_batch_is_caught(smollm2):
    def collate(examples):
        batch = collator(smollm2, padding_free=True, pad_to_multiple_of=512)(examples)
        batch["labels"][:, -1] = smollm2.pad_token_id
        return batch

    rows = make_rows()
    assert codes(smollm2, rows, encoded(smollm2, rows), collate) == [("padding_trained", 5)]


def test_packed_rows_are_proved_when_they_keep_their_order(smollm2):
    rows = make_rows()
    examples = encoded(smollm2, rows)
    packed = [
        {key: [value for e in part for value in e[key]] for key in ("input_ids", "labels")}
        | {"seq_lengths": [len(e["input_ids"]) for e in part]}
        for part in (examples[:3], examples[3:])
    ]
    collate = collator(smollm2, padding_free=True)
    assert prove(smollm2, rows, packed, collate) == prove(smollm2, rows, examples)
    with pytest.raises(ValueError, match="in order"):
        prove(smollm2, rows, packed[:1], collate)
