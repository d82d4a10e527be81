"""Entities of a text with the sentiment towards each: the model writes a JSON list of pairs.

Raw row:  {"text": "螢幕很亮，但電池撐不過半天", "pairs": [{"entity": "螢幕", "sentiment": "positive"}, …]}
Trained:  user "<instruction>\\n\\n螢幕很亮，但電池撐不過半天" -> assistant '[{"entity":"螢幕","sentiment":"正面"},…]'

Pairs are trained in the order in which their entities first occur in the text. A text that judges nothing has the
answer `[]`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasklib.data import answers, json_objects, label_scores, label_sets, mentions, normalization
from tasklib.data.answers import Fault, Form, Scores

Pair = dict[str, str]  # {entity, sentiment}: the text's own word, and the name in the data

METHODS = ("sft", "dpo", "orpo")
DECODINGS = ("generate",)
PRIMARY_METRIC = "pair_f1"
PRIMARY_METRICS = ("pair_f1", "entity_f1", "exact_match")
FIELDS = ("text", "pairs")
FORMS = (Form(FIELDS),)
INPUT_FIELDS = ("text",)
TEXT_FIELDS = ("text",)
TASK_CATEGORIES = ("text-classification",)
MAY_SHORTEN = False
CONTRADICTION = (
    "same text as {other}, but other pairs",
    "write all pairs of a text into one row, and remove the other",
)

ENTITY_KEYS = ("entity", "aspect", "target", "term", "text", "value", "mention", "name")
SENTIMENT_KEYS = ("sentiment", "polarity", "label", "tag")
_N_FIRST = 5  # columns of the counts before those of the sentiments: rows, parsed, exact, entities found, entities


class Options(BaseModel):
    """`task:` of the definition. `sentiments` maps the name in the data to what the model writes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    type: Literal["entity_sentiment_pairs"]
    sentiments: label_sets.Labels
    label_definitions: dict[str, str] = Field(
        {}, description="sentiment -> when an entity gets it, for the annotation guide"
    )
    mention: Literal["in_text", "free"] = Field(
        "in_text", description="free: entities are aspects or categories that need not occur in the text"
    )
    repeats: Literal["refuse", "merge"] = Field(
        "refuse", description="merge: a pair that stands twice in a row counts once, as where each mention is listed"
    )

    @model_validator(mode="after")
    def _definitions_are_of_sentiments(self) -> Options:
        label_sets.require_known(self.label_definitions, self.sentiments, "label_definitions", "sentiments")
        return self


class Record(BaseModel):
    """One checked row. `pairs` holds {entity, sentiment}; it is also empty for a text that is still to be predicted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    text: str
    pairs: list[Pair]


def _pairs(**sentiments: str) -> list[Pair]:
    return [{"entity": entity, "sentiment": sentiment} for entity, sentiment in sentiments.items()]


EXAMPLE_OPTIONS = Options(
    type="entity_sentiment_pairs",
    sentiments={"positive": "正面", "negative": "負面", "neutral": "中性", "not positive": "不是正面"},
)
EXAMPLES = [
    Record(text="螢幕很亮，但電池撐不過半天", pairs=_pairs(螢幕="positive", 電池="negative")),
    Record(text="森原電子與宏川通訊同日召開法說會", pairs=_pairs(森原電子="neutral", 宏川通訊="neutral")),
    Record(text="湯頭普通，湯頭以外都好", pairs=_pairs(湯頭="not positive")),
    Record(text="a", pairs=_pairs(a="neutral")),
    Record(
        text='第一行\n鍵盤 "手感" [很好] {真的}，[Esc] 卻會卡',
        pairs=[
            {"entity": '鍵盤 "手感"', "sentiment": "positive"},
            {"entity": "[Esc]", "sentiment": "negative"},
        ],
    ),
    Record(text="店員親切，店長更親切", pairs=_pairs(店員="positive", 店長="positive")),
]


def default_instruction(options: Options, language: str) -> str:
    """The instruction of a task whose definition gives none."""
    names = list(options.sentiments.values())
    shape = json_objects.dumps([{"entity": "…", "sentiment": "…"}])
    if language == "zh-TW":
        return (
            "找出下列文字評論到的每個對象，以及文字對它的情感，只用 JSON 陣列回答，"
            f"格式是 {shape}，沒有就回答 []。sentiment 只能是：{'、'.join(names)}。"
        )
    return (
        "Find everything that the following text judges, and its sentiment towards each. Answer with a JSON list only, "
        f"like {shape}, or [] if there is nothing. sentiment is one of: {', '.join(names)}."
    )


def prompt(record: Record, options: Options, instruction: str) -> str:
    """The user turn; it depends on the text alone, never on the gold pairs."""
    return f"{instruction}\n\n{record.text}"


def answer(record: Record, options: Options) -> str:
    """The assistant turn that is trained on: compact JSON."""
    written = [{**pair, "sentiment": options.sentiments[pair["sentiment"]]} for pair in record.pairs]
    return json_objects.dumps(written)


def answer_schema(options: Options) -> dict[str, Any]:
    """JSON Schema of an answer, for `generation.constrained`."""
    properties = {
        "entity": {"type": "string", "minLength": 1},
        "sentiment": {"enum": list(options.sentiments.values())},
    }
    item = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    return {"type": "array", "items": item}


def gold(record: Record) -> list[Pair]:
    return record.pairs


def text_of(record: Record) -> str:
    """The text that duplicates and leakage look at."""
    return record.text


history = answers.no_history
passage_of = text_of
pieces = answers.one_piece
resolved = answers.resolved_alone


def strata(record: Record) -> tuple[str, ...]:
    """The sentiments of a row, each once, by which splits are stratified."""
    return tuple(sorted({pair["sentiment"] for pair in record.pairs}))


def label_set(options: Options) -> None:
    """Answers are open."""


# Baseline


def _dictionary(train: Sequence[Record], rows: Sequence[Record], options: Options) -> list[list[Pair]]:
    """The entities of train that occur in a text, the longest first at each place, each with its most frequent
    sentiment in train."""
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in train:
        for pair in record.pairs:
            seen[mentions.folded(pair["entity"])][pair["sentiment"]] += 1
    sentiments = {name: min(found, key=lambda label: (-found[label], label)) for name, found in seen.items()}
    return [
        [
            {"entity": entity, "sentiment": sentiments[entity]}
            for entity in sorted(answers.longest_occurrences(mentions.folded(record.text), list(sentiments)))
        ]
        for record in rows
    ]


BASELINES = {"dictionary": _dictionary}


# Reading


def read_record(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one mapped row. `pairs` is a list of objects, or JSON text of one; other names of the two keys
    (ENTITY_KEYS, SENTIMENT_KEYS) are read too. Returns the record, or None with every fault of the row."""
    text, faults = answers.require_text(values, "text")
    pairs, more = _read_pairs(values.get("pairs"), options)
    if not faults and options.mention == "in_text":
        more = more + [fault for pair in pairs for fault in mentions.require_in(text, pair["entity"], "pairs")]
    faults += more
    if faults:
        return None, faults
    in_order = sorted(pairs, key=lambda pair: mentions.position(pair["entity"], text))
    return Record(text=text, pairs=in_order), []


def read_input(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one row that has no gold answer."""
    text, faults = answers.require_text(values, "text")
    return (None, faults) if faults else (Record(text=text, pairs=[]), [])


def _read_pairs(value: Any, options: Options) -> tuple[list[Pair], list[Fault]]:
    hint = 'write a list like [{"entity": "…", "sentiment": "…"}], [] where there is nothing'
    if value is None:
        return [], [Fault("missing_field", "pairs is missing", "pairs", hint)]
    if isinstance(value, str):
        try:
            value = json_objects.loads(value)
        except ValueError as error:
            return [], [Fault("wrong_type", f"pairs is no JSON: {error}", "pairs", hint)]
    if not isinstance(value, list):
        return [], [Fault("wrong_type", f"pairs is no list ({str(value)[:40]})", "pairs", hint)]
    pairs, faults = [], []
    for number, item in enumerate(value, start=1):
        pair, more = _read_pair(item, number, options)
        faults += more
        if not more:
            pairs.append(pair)
    pairs, more = _each_once(pairs, options)
    return pairs, faults + more


def _read_pair(item: Any, number: int, options: Options) -> tuple[Pair, list[Fault]]:
    if not isinstance(item, dict):
        hint = 'write {"entity": "…", "sentiment": "…"}'
        return {}, [Fault("bad_pair", f"pair {number} is no object ({str(item)[:40]})", "pairs", hint)]
    found = {
        role: next((item[key] for key in keys if item.get(key) is not None), None)
        for role, keys in (("entity", ENTITY_KEYS), ("sentiment", SENTIMENT_KEYS))
    }
    entity, faults = answers.require_text(found, "entity")
    sentiment, more = answers.require_label(found, "sentiment", list(options.sentiments), "sentiments")
    placed = [Fault(f.code, f"pair {number}: {f.message}", "pairs", f.hint) for f in faults + more]
    return {"entity": entity.strip(), "sentiment": sentiment}, placed


def _each_once(pairs: Sequence[Pair], options: Options) -> tuple[list[Pair], list[Fault]]:
    """The pairs, a repeated one once, and the faults of those that stand twice."""
    kept, faults = {}, []
    for pair in pairs:
        key = mentions.folded(pair["entity"])
        first = kept.setdefault(key, pair)
        if first is pair:
            continue
        shown = repr(pair["entity"][:40])
        if first["sentiment"] != pair["sentiment"]:
            message = f"{shown} has two sentiments: {first['sentiment']!r} and {pair['sentiment']!r}"
            hint = "one entity of a text has one sentiment: decide, or name what is judged more exactly"
            faults.append(Fault("two_sentiments", message, "pairs", hint))
        elif options.repeats == "refuse":
            hint = "remove one; where each mention is listed on purpose, set task.repeats: merge"
            faults.append(Fault("duplicate_pair", f"{shown} stands twice with the same sentiment", "pairs", hint))
    return list(kept.values()), faults


# Answers and their scores


def parse(text: str, options: Options) -> list[Pair] | None:
    """The pairs of a generated answer, a repeated one once, or None: there must be one JSON list, in which each element
    names an entity and one of the sentiments."""
    found = json_objects.only_array(text)
    if found is None:
        return None
    by_answer = {answers.fold(answer): label for label, answer in options.sentiments.items()}
    pairs = [_parsed_pair(item, by_answer) for item in found]
    if None in pairs:
        return None
    return list({_key(pair): pair for pair in reversed(pairs)}.values())[::-1]


def _parsed_pair(item: Any, by_answer: Mapping[str, str]) -> Pair | None:
    entity, sentiment = (item.get("entity"), item.get("sentiment")) if isinstance(item, dict) else (None, None)
    if not isinstance(entity, str) or not isinstance(sentiment, str) or not entity.strip():
        return None
    label = by_answer.get(answers.fold(sentiment))
    return {"entity": entity.strip(), "sentiment": label} if label is not None else None


def _key(pair: Pair) -> tuple[str, str]:
    """Pairs that are the same: width and case of the entity do not count."""
    return mentions.folded(pair["entity"]), pair["sentiment"]


def count(golds: Sequence[list[Pair]], predictions: Sequence[list[Pair] | None], options: Options) -> np.ndarray:
    """Shape (n_rows, 5 + 3 * S) for S sentiments: 1, whether the answer could be parsed, whether all pairs are right
    and none is missing, entities that gold and answer share, entities of gold plus those of the answer; then for each
    sentiment the pairs that are right, those of gold, those of the answer."""
    place = {sentiment: number for number, sentiment in enumerate(options.sentiments)}
    counts = np.zeros((len(golds), _N_FIRST + 3 * len(place)))
    for row, wanted, answered in zip(counts, golds, predictions, strict=True):
        right, said = {_key(pair) for pair in wanted}, {_key(pair) for pair in answered or []}
        entities, named = ({entity for entity, _ in pairs} for pairs in (right, said))
        is_parsed = answered is not None
        row[:_N_FIRST] = 1, is_parsed, is_parsed and right == said, len(entities & named), len(entities) + len(named)
        for number, pairs in enumerate((right & said, right, said)):
            _add(row[_N_FIRST + number * len(place) :], pairs, place)
    return counts


def _add(columns: np.ndarray, pairs: Iterable[tuple[str, str]], place: Mapping[str, int]) -> None:
    for _, sentiment in pairs:
        columns[place[sentiment]] += 1


def _of_sentiments(counts: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right pairs, gold ones and answered ones, each of shape (..., S)."""
    return label_scores.found(counts, _N_FIRST, len(options.sentiments))


def score_counts(counts: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Metric name -> values of shape (...,) for summed counts of shape (..., 5 + 3 * S); NaN where undefined.

    `pair_f1` is micro-F1 over pairs, where entity and sentiment must be right; `entity_f1` the same without regard to
    the sentiment; `sentiment_accuracy` the share of the entities found whose sentiment was named; `exact_match` the
    share of rows with all pairs and no other.
    """
    counts = np.asarray(counts, dtype=np.float64)
    right, wanted, said = (part.sum(-1) for part in _of_sentiments(counts, options))
    return {
        "pair_f1": answers.ratio(2 * right, wanted + said),
        "pair_precision": answers.ratio(right, said),
        "pair_recall": answers.ratio(right, wanted),
        "entity_f1": answers.ratio(2 * counts[..., 3], counts[..., 4]),
        "sentiment_accuracy": answers.ratio(right, counts[..., 3]),
        "exact_match": answers.ratio(counts[..., 2], counts[..., 0]),
        "parse_rate": answers.ratio(counts[..., 1], counts[..., 0]),
    }


def class_ratios(counts: np.ndarray, options: Options) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (numerators, denominators), each of shape (..., S)."""
    return label_scores.ratios_of_found(*_of_sentiments(counts, options))


def per_class(counts: np.ndarray, options: Options) -> dict[str, dict[str, float | None]]:
    """Sentiment -> precision, recall, f1 of its pairs (None where undefined) and how many gold pairs have it."""
    _, wanted, _ = _of_sentiments(counts, options)
    return label_scores.table(class_ratios(counts, options), wanted, options.sentiments)


def score(golds: Sequence[list[Pair]], predictions: Sequence[list[Pair] | None], options: Options) -> Scores:
    """All metrics over a corpus; what is undefined is None, with its name in `undefined`."""
    counts = count(golds, predictions, options).sum(0)
    return label_scores.scores(score_counts(counts, options), per_class(counts, options))


def reward(record: Record, text: str, options: Options) -> float:
    """F1 of the pairs of a generated text; 1.0 for `[]` where there is nothing to find, 0.0 for no legal answer."""
    said = parse(text, options)
    if said is None:
        return 0.0
    wanted, named = {_key(pair) for pair in record.pairs}, {_key(pair) for pair in said}
    return 2 * len(wanted & named) / (len(wanted) + len(named)) if wanted or named else 1.0


def normalized(record: Record, forms: Sequence[str], options: Options) -> Record:
    """The record after the declared `data.normalize` steps; entities too, so that they are still found in the text."""
    pairs = [{**pair, "entity": normalization.applied(pair["entity"], forms)} for pair in record.pairs]
    return record.model_copy(update={"text": normalization.applied(record.text, forms), "pairs": pairs})
