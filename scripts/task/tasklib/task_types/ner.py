"""Named entities: the model writes a JSON list of what it found, and their places are recovered from the text.

Raw row:  {"text": "王小明到台北開會", "entities": [{"start": 0, "end": 3, "type": "PER"}, …]}
Trained:  user "<instruction>\\n\\n王小明到台北開會" -> assistant '[{"text":"王小明","type":"人名"},…]'

Entities are trained in the order of the text, so that a mention is the next one of its words behind the mention before.
Where an entity is another one (the second 蘋果 is a company, the first a fruit), `nth` says which; it counts from 1.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tasklib.data import answers, json_objects, label_scores, label_sets, normalization, spans
from tasklib.data.answers import Fault, Form, Scores

Entity = dict[str, Any]  # {start, end, type, text}; start and end are None where an answer is not in the text
Mention = dict[str, Any]  # {text, type} as the model writes it, and nth where there is one

METHODS = ("sft", "dpo", "orpo")
DECODINGS = ("generate",)
PRIMARY_METRIC = "entity_f1"
PRIMARY_METRICS = ("entity_f1", "macro_f1", "partial_f1", "exact_match")
FIELDS = ("text", "entities")
FORMS = (Form(FIELDS), Form(("tokens", "tags")), Form(("tagged",)))
INPUT_FIELDS = ("text", "tokens")
TEXT_FIELDS = ("text",)
TASK_CATEGORIES = ("token-classification",)
MAY_SHORTEN = False
CONTRADICTION = (
    "same text as {other}, but other entities",
    "correct the row that is wrong, or remove it: at most one of the two can be scored as right",
)
_N_FIRST = 6  # columns: rows, parsed, exactly right, credit for overlaps, gold and answered entities; then of each type
_SENTENCE_ENDS = "。！？!?；;\n"
_LOOK_BACK = 0.3  # of a window may be given up to end it with a sentence


class Offsets(BaseModel):
    """How the offsets of raw spans count."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    end: Literal["exclusive", "inclusive"] = "exclusive"
    unit: Literal["code_points", "utf16"] = Field("code_points", description="utf16: as JavaScript and Java count")


class Windows(BaseModel):
    """Long texts are asked and trained in windows that overlap, and the answers are merged by their places."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    max_chars: int = Field(ge=16)
    overlap_chars: int = Field(ge=0, description="at least as long as the longest entity")

    @model_validator(mode="after")
    def _moves_on(self) -> Windows:
        if self.overlap_chars * 2 > self.max_chars:
            raise ValueError("overlap_chars is more than half of max_chars: windows would hardly move on")
        return self


EntityTypes = Annotated[
    dict[str, str],
    BeforeValidator(label_sets.as_mapping),
    AfterValidator(label_sets.distinct),
    Field(min_length=1, description="name in the data -> what the model writes"),
]


class Options(BaseModel):
    """`task:` of the definition."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    type: Literal["ner"]
    entity_types: EntityTypes
    type_definitions: dict[str, str] = Field(
        {}, description="entity type -> what belongs to it, for the annotation guide"
    )
    offsets: Offsets = Offsets()
    orphan_tags: Literal["refuse", "begin"] = Field(
        "refuse", description="begin: an I- without a beginning begins an entity, as conlleval has it"
    )
    windows: Windows | None = None

    @model_validator(mode="after")
    def _definitions_are_of_types(self) -> Options:
        label_sets.require_known(self.type_definitions, self.entity_types, "type_definitions", "entity_types")
        return self


class Record(BaseModel):
    """One checked row. `entities` holds {start, end, type} in code points, end exclusive, in order; `offset` is where a
    window begins in its text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    text: str
    entities: list[dict[str, Any]]
    offset: int = 0


def _record(text: str, *found: tuple[str, str]) -> Record:
    """A record whose entities are these words, each the next one behind the one before."""
    entities, place = [], 0
    for words, name in found:
        start = text.index(words, place)
        place = start + len(words)
        entities.append({"start": start, "end": place, "type": name})
    return Record(text=text, entities=entities)


EXAMPLE_OPTIONS = Options(type="ner", entity_types={"PER": "人名", "ORG": "組織", "LOC": "地點", "ORG.NAM": "組織名稱"})
EXAMPLES = [
    _record("王小明昨天到台北拜訪森原電子", ("王小明", "PER"), ("台北", "LOC"), ("森原電子", "ORG")),
    _record("今天天氣很好，沒有人被提到"),
    _record("林怡君說林怡君就是她", ("林怡君", "PER"), ("林怡君", "PER")),
    Record(text="蘋果很甜，蘋果發表新機", entities=[{"start": 5, "end": 7, "type": "ORG"}]),
    _record("台北市長陳大同訪問台北", ("台北", "LOC"), ("陳大同", "PER"), ("台北", "LOC")),
    _record("🙂🙂 ASML 與台積電在新竹合作", ("ASML", "ORG.NAM"), ("台積電", "ORG.NAM"), ("新竹", "LOC")),
    _record('第一行\n他說 "去 {台中}"，[高雄](其實) 也行', ("台中", "LOC"), ("高雄", "LOC")),
    _record("高雄台南都停電", ("高雄", "LOC"), ("台南", "LOC")),
]


def default_instruction(options: Options, language: str) -> str:
    """The instruction of a task whose definition gives none."""
    names, shape = list(options.entity_types.values()), json_objects.dumps([{"text": "…", "type": "…"}])
    if language == "zh-TW":
        return (
            f"找出下列文字裡的實體，照出現的順序只用 JSON 陣列回答，格式是 {shape}，text 照抄原文，沒有就回答 []。"
            f"type 只能是：{'、'.join(names)}。"
        )
    return (
        f"Find the entities in the following text. Answer with a JSON list only, in the order of the text, like "
        f"{shape}, text copied as it stands, or [] if there is none. type is one of: {', '.join(names)}."
    )


def prompt(record: Record, options: Options, instruction: str) -> str:
    """The user turn; it depends on the text alone, never on the gold entities."""
    return f"{instruction}\n\n{record.text}"


def answer(record: Record, options: Options) -> str:
    """The assistant turn that is trained on: compact JSON."""
    written = [{**m, "type": options.entity_types[m["type"]]} for m in _mentions(record.text, record.entities)]
    return json_objects.dumps(written)


def answer_schema(options: Options) -> dict[str, Any]:
    """JSON Schema of an answer, for `generation.constrained`."""
    properties = {
        "text": {"type": "string", "minLength": 1},
        "type": {"enum": list(options.entity_types.values())},
        "nth": {"type": "integer", "minimum": 1},
    }
    item = {"type": "object", "properties": properties, "required": ["text", "type"], "additionalProperties": False}
    return {"type": "array", "items": item}


def gold(record: Record) -> list[Entity]:
    """The entities with their words."""
    return [{**entity, "text": record.text[entity["start"] : entity["end"]]} for entity in record.entities]


def text_of(record: Record) -> str:
    """The text that duplicates and leakage look at."""
    return record.text


history = answers.no_history
passage_of = text_of


def strata(record: Record) -> tuple[str, ...]:
    """The types in a text, each once, by which splits are stratified."""
    return tuple(sorted({entity["type"] for entity in record.entities}))


def label_set(options: Options) -> None:
    """Answers are open."""


# Mentions and places


def _mentions(text: str, entities: Sequence[Mapping[str, Any]]) -> list[Mention]:
    """{text, type} of each entity in order, with `nth` where it is not the next one of its words."""
    found, behind = [], defaultdict(int)
    for entity in entities:
        words = text[entity["start"] : entity["end"]]
        mention = {"text": words, "type": entity["type"]}
        if text.find(words, behind[words]) != entity["start"]:
            mention["nth"] = 1 + sum(place < entity["start"] for place in _places(text, words))
        behind[words] = entity["end"]
        found.append(mention)
    return found


def _places(text: str, words: str) -> Iterator[int]:
    place = text.find(words)
    while place >= 0:
        yield place
        place = text.find(words, place + 1)


def _located(text: str, mentions: Sequence[Mention], offset: int) -> list[Entity]:
    """Mentions with their places in the whole text; None where the words are not in it."""
    found, behind = [], defaultdict(int)
    for mention in mentions:
        words, nth = mention["text"], mention.get("nth")
        if nth is None:
            start = text.find(words, behind[words])
        else:
            start = next((place for number, place in enumerate(_places(text, words), start=1) if number == nth), -1)
        entity = {"start": None, "end": None, "type": mention["type"], "text": words}
        if start >= 0:
            behind[words] = start + len(words)
            entity |= {"start": offset + start, "end": offset + start + len(words)}
        found.append(entity)
    return found


def pieces(record: Record, options: Options, *, training: bool) -> list[Record]:
    """The windows of a text that is longer than `windows.max_chars`, each ended with a sentence where there is one. In
    training a window that would cut an entity ends before it, and one that would begin inside begins with it."""
    spec = options.windows
    if spec is None or len(record.text) <= spec.max_chars:
        return [record]
    found, start = [], 0
    while True:
        whole = _end_of_window(record.text, start, spec.max_chars)
        end = _uncut(record.entities, start, whole) if training else whole
        inside = [e for e in record.entities if start <= e["start"] and e["end"] <= end]
        moved = [{**e, "start": e["start"] - start, "end": e["end"] - start} for e in inside]
        found.append(Record(text=record.text[start:end], entities=moved, offset=record.offset + start))
        if end >= len(record.text):
            return found
        behind = min(whole - spec.overlap_chars, end)  # counted from where nothing was cut, so that windows move on
        start = _uncut(record.entities, start, behind) if training else behind


def _uncut(entities: Sequence[Mapping[str, Any]], start: int, place: int) -> int:
    """The place itself, or where the entity begins that it would cut; one from `start` on has nothing before it."""
    return next((e["start"] for e in entities if start < e["start"] < place < e["end"]), place)


def _end_of_window(text: str, start: int, max_chars: int) -> int:
    end = start + max_chars
    if end >= len(text):
        return len(text)
    earliest = start + int(max_chars * (1 - _LOOK_BACK))
    ends = (place + 1 for place in range(end - 1, earliest - 1, -1) if text[place] in _SENTENCE_ENDS)
    return next(ends, end)


def resolved(
    record: Record, pieces: Sequence[Record], values: Sequence[list[Mention] | None], options: Options
) -> list[Entity] | None:
    """The entities of all windows with their places: what two windows both found once, and of two that overlap the
    longer. None where no window had an answer that could be read."""
    if all(value is None for value in values):
        return None
    found = [
        entity
        for piece, value in zip(pieces, values, strict=True)
        for entity in _located(piece.text, value or [], piece.offset - record.offset)
    ]
    placed = [entity for entity in found if entity["start"] is not None]
    if len(pieces) == 1:
        return found
    kept: list[Entity] = []
    for entity in sorted(placed, key=lambda e: (e["start"] - e["end"], e["start"], e["type"])):  # longest first
        if all(entity["end"] <= other["start"] or other["end"] <= entity["start"] for other in kept):
            kept.append(entity)
    lost = {(entity["text"], entity["type"]): entity for entity in found if entity["start"] is None}
    return [*sorted(kept, key=lambda entity: entity["start"]), *lost.values()]


# Baseline


def _dictionary(train: Sequence[Record], rows: Sequence[Record], options: Options) -> list[list[Entity]]:
    """The entities of train that occur in a text, the longest first at each place, each with its most frequent type."""
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for entity in (entity for record in train for entity in gold(record)):
        seen[entity["text"]][entity["type"]] += 1
    types = {words: min(found, key=lambda name: (-found[name], name)) for words, found in seen.items()}
    by_first: defaultdict[str, list[str]] = defaultdict(list)
    for words in sorted(types, key=len, reverse=True):
        by_first[words[0]].append(words)
    return [list(_looked_up(record.text, by_first, types)) for record in rows]


def _looked_up(text: str, by_first: Mapping[str, list[str]], types: Mapping[str, str]) -> Iterator[Entity]:
    place = 0
    while place < len(text):
        words = next((w for w in by_first.get(text[place], ()) if text.startswith(w, place)), None)
        if words:
            yield {"start": place, "end": place + len(words), "type": types[words], "text": words}
        place += len(words) if words else 1


BASELINES = {"dictionary": _dictionary}


# Reading


def read_record(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one mapped row of any form. Returns the record, or None with every fault of the row."""
    if "tagged" in values:
        text, found, faults = _read_tagged(values, options)
    elif "tokens" in values or "tags" in values:
        text, found, faults = _read_tokens(values, options)
    else:
        text, found, faults = _read_spans(values, options)
    return (None, faults) if faults else (Record(text=text, entities=found), [])


def read_input(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one row that has no gold answer."""
    if "tokens" in values and values.get("text") is None:
        tokens, faults = _strings(values, "tokens")
        text = spans.joined(tokens)[0]
    else:
        text, faults = answers.require_text(values, "text")
    return (None, faults) if faults else (Record(text=text, entities=[]), [])


def _read_spans(values: Mapping[str, Any], options: Options) -> tuple[str, list[Entity], list[Fault]]:
    text, faults = answers.require_text(values, "text")
    hint = 'write a list like [{"start": 0, "end": 3, "type": "PER"}], [] where there is nothing'
    given = values.get("entities")
    if isinstance(given, str):
        try:
            given = json_objects.loads(given)
        except ValueError as error:
            faults.append(Fault("wrong_type", f"entities is no JSON: {error}", "entities", hint))
            return text, [], faults
    if given is None:
        faults.append(Fault("missing_field", "entities is missing", "entities", hint))
    elif not isinstance(given, list):
        faults.append(Fault("wrong_type", f"entities is no list ({str(given)[:40]})", "entities", hint))
    elif not faults:
        inclusive, utf16 = options.offsets.end == "inclusive", options.offsets.unit == "utf16"
        found, more = spans.from_list(text, given, list(options.entity_types), inclusive=inclusive, utf16=utf16)
        return text, found, more
    return text, [], faults


def _read_tokens(values: Mapping[str, Any], options: Options) -> tuple[str, list[Entity], list[Fault]]:
    tokens, faults = _strings(values, "tokens")
    tags, more = _strings(values, "tags")
    faults += more
    if not faults and len(tokens) != len(tags):
        message, hint = f"{len(tokens)} tokens have {len(tags)} tags", "write one tag for each token"
        faults.append(Fault("tag_count", message, "tags", hint))
    if faults:
        return "", [], faults
    types = list(options.entity_types)
    return spans.from_tags(tokens, tags, types, begin_orphans=options.orphan_tags == "begin")


def _strings(values: Mapping[str, Any], role: str) -> tuple[list[str], list[Fault]]:
    """A list of words, or text with a space between two."""
    given, hint = values.get(role), "write a list of strings"
    if isinstance(given, str) and given.strip().startswith("["):
        try:
            given = json_objects.loads(given)
        except ValueError as error:
            return [], [Fault("wrong_type", f"{role} is no JSON: {error}", role, hint)]
    if isinstance(given, str) and given.strip():
        given = given.split()
    if given is None:
        return [], [Fault("missing_field", f"{role} is missing", role, hint)]
    if isinstance(given, list) and given and all(type(item) is int for item in given):
        hint = "write the names that the numbers stand for, such as B-PER and O; the features of a data set list them"
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        return [], [Fault("wrong_type", f"{role} is no list of strings ({str(given)[:40]})", role, hint)]
    if not "".join(given).strip():
        return [], [Fault("empty_field", f"{role} is empty", role, "fill the cell or remove the row")]
    return given, []


def _read_tagged(values: Mapping[str, Any], options: Options) -> tuple[str, list[Entity], list[Fault]]:
    tagged, faults = answers.require_text(values, "tagged")
    return ("", [], faults) if faults else spans.from_inline(tagged, list(options.entity_types))


def raw_row(record: Record, form: Form) -> dict[str, Any] | None:
    """A raw row of a form that reads back as this record; None where that form cannot hold it."""
    if form == FORMS[0]:
        return {"text": record.text, "entities": record.entities}
    if form == FORMS[1]:
        tags = ["O"] * len(record.text)
        for entity in record.entities:
            tags[entity["start"] : entity["end"]] = [f"I-{entity['type']}"] * (entity["end"] - entity["start"])
            tags[entity["start"]] = f"B-{entity['type']}"
        row: dict[str, Any] = {"tokens": list(record.text), "tags": tags}
    else:
        text, place = "", 0
        for entity in record.entities:
            words = record.text[entity["start"] : entity["end"]]
            text += f"{record.text[place : entity['start']]}<{entity['type']}>{words}</{entity['type']}>"
            place = entity["end"]
        row = {"tagged": text + record.text[place:]}
    types = {entity["type"]: entity["type"] for entity in record.entities} or {"PER": "PER"}
    found, _ = read_record(row, Options(type="ner", entity_types=types))
    return row if found == record else None


def normalized(record: Record, forms: Sequence[str], options: Options) -> Record:
    """The record after the declared `data.normalize` steps, its entities at the places where their words stand then."""
    if not forms:
        return record
    places = [place for entity in record.entities for place in (entity["start"], entity["end"])]
    text, moved = normalization.with_offsets(record.text, forms, places)
    entities = [
        {**entity, "start": start, "end": end}
        for entity, start, end in zip(record.entities, moved[::2], moved[1::2], strict=True)
        if start < end
    ]
    return record.model_copy(update={"text": text, "entities": entities})


# Answers and their scores


def parse(text: str, options: Options) -> list[Mention] | None:
    """The mentions of a generated answer, or None: there must be one JSON list, in which each element has words and one
    of the types, and may have nth."""
    found = json_objects.only_array(text)
    if found is None:
        return None
    by_answer = {answers.fold(answer): name for name, answer in options.entity_types.items()}
    mentions = [_parsed(item, by_answer) for item in found]
    return None if None in mentions else mentions


def _parsed(item: Any, by_answer: Mapping[str, str]) -> Mention | None:
    if not isinstance(item, dict) or not isinstance(item.get("text"), str) or not isinstance(item.get("type"), str):
        return None
    name, nth = by_answer.get(answers.fold(item["type"])), item.get("nth")
    if name is None or not item["text"] or (nth is not None and (type(nth) is not int or nth < 1)):
        return None
    return {"text": item["text"], "type": name} | ({} if nth is None else {"nth": nth})


def _key(entity: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two entities the same: place and type."""
    return entity["start"], entity["end"], entity["type"]


def count(golds: Sequence[list[Entity]], predictions: Sequence[list[Entity] | None], options: Options) -> np.ndarray:
    """Shape (n_rows, 6 + 3 * T) for T types: 1, whether the answer could be parsed, whether exactly the gold entities
    were found, credit for overlaps (`_credit`), gold entities, answered ones; then for each type those that are right,
    those of gold, those of the answer. An entity answered twice counts twice as answered and once as right."""
    place = {name: number for number, name in enumerate(options.entity_types)}
    counts = np.zeros((len(golds), _N_FIRST + 3 * len(place)))
    for row, wanted, answered in zip(counts, golds, predictions, strict=True):
        said = answered or []
        right = Counter(map(_key, wanted)) & Counter(_key(e) for e in said if e["start"] is not None)
        is_exact = answered is not None and right.total() == len(wanted) == len(said)
        row[:_N_FIRST] = 1, answered is not None, is_exact, _credit(wanted, said), len(wanted), len(said)
        for number, names in enumerate(([key[2] for key in right.elements()], _types(wanted), _types(said))):
            for name in names:
                row[_N_FIRST + number * len(place) + place[name]] += 1
    return counts


def _types(entities: Sequence[Entity]) -> list[str]:
    return [entity["type"] for entity in entities]


def _credit(wanted: Sequence[Entity], said: Sequence[Entity]) -> float:
    """1 for each answered entity at the very place of a gold one, 0.5 for one that overlaps one, whatever the types:
    `partial` of SemEval-2013 task 9.1 as nervaluate counts it, each gold entity used once."""
    open_golds, credit = list(wanted), 0.0
    for entity in said:
        if entity["start"] is None:
            continue
        near = [g for g in open_golds if g["start"] < entity["end"] and entity["start"] < g["end"]]
        same = [g for g in near if (g["start"], g["end"]) == (entity["start"], entity["end"])]
        if near:
            credit += 1.0 if same else 0.5
            open_golds.remove((same or near)[0])
    return credit


def _of_types(counts: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right entities, gold ones and answered ones, each of shape (..., T)."""
    return label_scores.found(counts, _N_FIRST, len(options.entity_types))


def score_counts(counts: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Metric name -> values of shape (...,) for summed counts of shape (..., 6 + 3 * T); NaN where undefined.

    `entity_f1` is micro-F1 over entities whose place and type are right, as conlleval, seqeval and nervaluate (strict)
    have it; `macro_f1` the mean over types that occur; `partial_f1` gives half credit for an overlap, whatever the type
    (nervaluate's partial); `exact_match` is the share of rows with all entities and no other.
    """
    counts = np.asarray(counts, dtype=np.float64)
    of_types = _of_types(counts, options)
    right, wanted, said = (part.sum(-1) for part in of_types)
    return {
        "entity_f1": answers.ratio(2 * right, wanted + said),
        "entity_precision": answers.ratio(right, said),
        "entity_recall": answers.ratio(right, wanted),
        "macro_f1": label_scores.mean_of_defined(answers.ratio(2 * of_types[0], of_types[1] + of_types[2])),
        "partial_f1": answers.ratio(2 * counts[..., 3], counts[..., 4] + counts[..., 5]),
        "exact_match": answers.ratio(counts[..., 2], counts[..., 0]),
        "parse_rate": answers.ratio(counts[..., 1], counts[..., 0]),
    }


def class_ratios(counts: np.ndarray, options: Options) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (numerators, denominators), each of shape (..., T)."""
    return label_scores.ratios_of_found(*_of_types(counts, options))


def per_class(counts: np.ndarray, options: Options) -> dict[str, dict[str, float | None]]:
    """Type -> precision, recall, f1 (None where undefined) and how many gold entities have it."""
    _, wanted, _ = _of_types(counts, options)
    return label_scores.table(class_ratios(counts, options), wanted, options.entity_types)


def score(golds: Sequence[list[Entity]], predictions: Sequence[list[Entity] | None], options: Options) -> Scores:
    """All metrics over a corpus; what is undefined is None, with its name in `undefined`."""
    counts = count(golds, predictions, options).sum(0)
    return label_scores.scores(score_counts(counts, options), per_class(counts, options))


def reward(record: Record, text: str, options: Options) -> float:
    """F1 of the entities of a generated text; 1.0 for `[]` where there is nothing to find, 0.0 for no legal answer."""
    said = parse(text, options)
    if said is None:
        return 0.0
    found = Counter(_key(e) for e in _located(record.text, said, 0) if e["start"] is not None)
    wanted = Counter(map(_key, record.entities))
    n_all = wanted.total() + len(said)
    return 2 * (wanted & found).total() / n_all if n_all else 1.0
