"""Extraction: the model fills a JSON object, whose fields a JSON Schema declares, with what a text says.

Raw row:  {"text": "7/3 下午修冷氣，費用 1,200 元", "output": {"item": "冷氣", "fee": 1200}}
Trained:  user "<instruction>\\n\\n7/3 下午修冷氣…" -> assistant '{"item":"冷氣","fee":1200}'
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasklib.data import answers, json_objects, json_schemas, label_scores, normalization, text_baselines
from tasklib.data.answers import Fault, Form, Scores

METHODS = ("sft", "dpo", "orpo")
DECODINGS = ("generate",)
PRIMARY_METRIC = "field_f1"
PRIMARY_METRICS = ("field_f1", "macro_field_f1", "exact_match")
FIELDS = ("text", "output")
FORMS = (Form(FIELDS),)
INPUT_FIELDS = ("text",)
TEXT_FIELDS = ("text",)
TASK_CATEGORIES = ("text-generation", "token-classification")  # the Hub has no name of its own for it
MAY_SHORTEN = False  # what a field needs may stand anywhere
CONTRADICTION = (
    "same text as {other}, but another object",
    "correct the row that is wrong, or remove it: at most one of the two can be scored as right",
)


class Windows(BaseModel):
    """How a long text is cut into pieces that are asked one by one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    max_chars: int = Field(ge=50, description="characters of a piece")
    overlap_chars: int = Field(0, ge=0, description="characters that a piece has in common with the one before")

    @model_validator(mode="after")
    def _goes_on(self) -> Windows:
        if self.overlap_chars >= self.max_chars:
            raise ValueError(f"overlap_chars {self.overlap_chars} must be less than max_chars {self.max_chars}")
        return self


class Options(BaseModel):
    """`task:` of the definition. `json_schema` is a part of draft 2020-12 (`json_schemas.KEYWORDS`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    type: Literal["extraction"]
    json_schema: dict[str, Any] = Field(description="JSON Schema of the answer: type object, properties, required, …")
    windows: Windows | None = Field(None, description="null asks for the whole text at once")

    @field_validator("json_schema")
    @classmethod
    def _is_supported(cls, schema: dict[str, Any]) -> dict[str, Any]:
        json_schemas.require_supported(schema)
        return schema

    @model_validator(mode="after")
    def _pieces_may_hold_nothing(self) -> Options:
        for name in self.json_schema["properties"] if self.windows else ():
            if _nothing(name, self) is _MUST_HOLD:
                raise ValueError(
                    f"json_schema.properties.{name}: a piece of a text may not hold it: with windows each field must "
                    "be an array without minItems, be not required, or allow null, e.g. type: [string, 'null']"
                )
        return self


class Record(BaseModel):
    """One checked row. `output` has its keys in the schema's order; it is empty for a text that is still to be read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    text: str
    output: dict[str, Any]


EXAMPLE_OPTIONS = Options(
    type="extraction",
    json_schema={
        "type": "object",
        "properties": {
            "customer": {"type": ["string", "null"], "x-in-text": True},
            "items": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1}},
                    "required": ["name", "quantity"],
                },
            },
            "total": {"type": "number"},
            "urgent": {"type": "boolean"},
        },
        "required": ["customer", "items", "urgent"],
    },
)


def _example(text: str, **output: Any) -> Record:
    return Record(text=text, output=output)


EXAMPLES = [
    _example(
        "林小姐訂兩盒鳳梨酥、一盒太陽餅，共 1,050 元，明天就要",
        customer="林小姐",
        items=[{"name": "鳳梨酥", "quantity": 2}, {"name": "太陽餅", "quantity": 1}],
        total=1050,
        urgent=True,
    ),
    _example("蛋黃酥十二顆，不急", customer=None, items=[{"name": "蛋黃酥", "quantity": 12}], urgent=False),
    _example("王先生問有沒有開門", customer="王先生", items=[], urgent=False),
    _example(
        'Ms. "Wu" {VIP}: 3 x tea\\cake @ 99.5',
        customer='Ms. "Wu" {VIP}',
        items=[{"name": "tea\\cake", "quantity": 3}],
        total=298.5,
        urgent=False,
    ),
    _example("阿明今天要，綠豆糕一盒", customer="阿明", items=[{"name": "綠豆糕", "quantity": 1}], urgent=True),
]


def default_instruction(options: Options, language: str) -> str:
    """The instruction of a task whose definition gives none: every field with what may stand in it."""
    fields = "\n".join(f"- {line}" for line in json_schemas.told(options.json_schema))
    if language == "zh-TW":
        return f"從下列文字取出這些欄位，只回答一個 JSON 物件，沒有提到的就照欄位允許的方式留空：\n{fields}"
    return f"Read these fields from the following text. Answer with one JSON object and nothing else:\n{fields}"


def prompt(record: Record, options: Options, instruction: str) -> str:
    """The user turn; it depends on the text alone, never on the gold object."""
    return f"{instruction}\n\n{record.text}"


def answer(record: Record, options: Options) -> str:
    """The assistant turn that is trained on: compact JSON, keys in the schema's order."""
    return json_objects.dumps(record.output)


def gold(record: Record) -> dict[str, Any]:
    return record.output


def text_of(record: Record) -> str:
    """The text that duplicates, leakage and TF-IDF look at."""
    return record.text


history = answers.no_history
passage_of = text_of


def label_set(options: Options) -> None:
    """Answers are open."""


def strata(record: Record) -> tuple[str, ...]:
    """Nothing to stratify by."""
    return ()


def answer_schema(options: Options) -> dict[str, Any]:
    """The JSON Schema that `generation.constrained` forces an answer to follow."""
    return json_schemas.closed(options.json_schema)


# Long texts

_MUST_HOLD = object()


def _nothing(name: str, options: Options) -> Any:
    """What a piece says of a field that it does not hold: [], null, or `...` for no key at all."""
    schema = options.json_schema["properties"][name]
    for value in ([], None):
        if json_schemas.is_valid(value, schema):
            return value
    return ... if name not in options.json_schema.get("required", []) else _MUST_HOLD


def pieces(record: Record, options: Options, *, training: bool) -> list[Record]:
    """With `windows` overlapping pieces of the text; each is trained with what stands in it.

    A value belongs to the pieces in which most of its strings and numbers stand; one of which nothing stands anywhere
    (a boolean, a category) is said of the whole text and belongs to all of them.
    """
    texts = _windows(record.text, options.windows) if options.windows else [record.text]
    if len(texts) == 1:
        return [record]
    if not training or not record.output:
        return [Record(text=text, output={}) for text in texts]
    outputs: list[dict[str, Any]] = [{} for _ in texts]
    for name, value in record.output.items():
        places = [_places(item, texts) for item in (value if isinstance(value, list) else [value])]
        for number, output in enumerate(outputs):
            nothing = _nothing(name, options)
            if isinstance(value, list):
                output[name] = [item for item, at in zip(value, places, strict=True) if number in at]
            elif number in places[0]:
                output[name] = value
            elif nothing is not ...:
                output[name] = nothing
    return [Record(text=text, output=output) for text, output in zip(texts, outputs, strict=True)]


def _windows(text: str, windows: Windows) -> list[str]:
    step = windows.max_chars - windows.overlap_chars
    starts = range(0, max(1, len(text) - windows.overlap_chars), step)
    return [text[start : start + windows.max_chars] for start in starts]


def _places(value: Any, texts: Sequence[str]) -> set[int]:
    """The pieces that hold most of a value."""
    parts = list(_parts(value))
    held = [sum(part in text for part in parts) for text in texts]
    return {number for number, n in enumerate(held) if n == max(held)}


def _parts(value: Any) -> Iterator[str]:
    """What of a value may stand in a text as it is: strings, and the digits of numbers."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _parts(inner)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def resolved(record: Record, asked: Sequence[Record], values: Sequence[Any], options: Options) -> dict[str, Any] | None:
    """One object out of those of the pieces: arrays one after another, each element once; of other fields the first
    that is not null. A piece whose answer was no JSON object adds nothing; None where no piece gave one."""
    found = [value for value in values if value is not None]
    if len(asked) == 1 or not found:
        return found[0] if found else None
    merged: dict[str, Any] = {}
    for value in found:
        for name, inner in value.items():
            before = merged.get(name)
            if isinstance(before, list) and isinstance(inner, list):
                known = {json_objects.comparable(item) for item in before}
                fresh = {json_objects.comparable(item): item for item in reversed(inner)}
                merged[name] = before + [item for key, item in reversed(fresh.items()) if key not in known]
            elif before is None:
                merged[name] = inner
    return json_schemas.in_order(merged, options.json_schema)


# Baselines


def _majority(train: Sequence[Record], rows: Sequence[Record], options: Options) -> list[dict[str, Any]]:
    """The most frequent value of each field, which may be its absence; ties go to the first in alphabetical order."""
    found = {}
    for name in options.json_schema["properties"]:
        counts = Counter(json_objects.dumps(r.output[name]) if name in r.output else "" for r in train)
        if most := min(counts, key=lambda text: (-counts[text], text), default=""):
            found[name] = json_objects.loads(most)
    return [found] * len(rows)


def _nearest(train: Sequence[Record], rows: Sequence[Record], options: Options) -> list[dict[str, Any] | None]:
    """The object of the training row whose text is most similar."""
    nearest = text_baselines.nearest([record.text for record in train], [record.text for record in rows])
    return [None if place is None else train[place].output for place in nearest]


BASELINES = {"majority": _majority, "nearest": _nearest}


# Reading


def read_record(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one mapped row. Returns the record, or None with every fault of the row."""
    text, faults = answers.require_text(values, "text")
    output, more = _read_output(values.get("output"))
    faults += more
    if not more:
        hint = "correct the row, or json_schema if it is legal; a field without a value: null, where its type has it"
        broken = json_schemas.violations(output, options.json_schema)
        faults += [Fault("schema_violation", message, "output", hint) for message in broken]
    if not faults:
        faults = _absent(text, output, options)
    if faults:
        return None, faults
    return Record(text=text, output=json_schemas.in_order(output, options.json_schema)), []


def read_input(values: Mapping[str, Any], options: Options) -> tuple[Record | None, list[Fault]]:
    """Checks one row that has no gold answer."""
    text, faults = answers.require_text(values, "text")
    return (None, faults) if faults else (Record(text=text, output={}), [])


LIST_HINT = (
    "the answer is one JSON object: of one alone remove the brackets [ ]; several go into an array below a key, e.g. "
    '{"items": [{…}, {…}]}, which json_schema declares with type array; or give each a row with a text of its own'
)


def _read_output(value: Any) -> tuple[dict[str, Any], list[Fault]]:
    """The gold object, which may stand there as text."""
    hint = 'write one JSON object, e.g. {"name": "value"}: double quotes, no comma at the end, each key once'
    if value is not None and not isinstance(value, str | dict | list):
        return {}, [Fault("wrong_type", f"output is {str(value)[:40]}, not an object", "output", hint)]
    if value is None or isinstance(value, str):
        value, faults = answers.require_text({"output": value}, "output")
        if faults:
            return {}, faults
    try:
        found = json_objects.loads(value if isinstance(value, str) else json_objects.dumps(value))
    except (ValueError, TypeError, RecursionError) as error:
        return {}, [Fault("not_json", f"output is no JSON: {error}", "output", hint)]
    if isinstance(found, list):
        message = f"output is a list of {len(found)} ({json_objects.dumps(found)[:40]}), not an object"
        return {}, [Fault("not_json" if isinstance(value, str) else "wrong_type", message, "output", LIST_HINT)]
    if not isinstance(found, dict):
        return {}, [Fault("not_json", f"output is {json_objects.dumps(found)[:40]}, not an object", "output", hint)]
    return found, []


def _absent(text: str, output: dict[str, Any], options: Options) -> list[Fault]:
    """Values that the schema marks with x-in-text and that the text does not hold."""
    folded = json_objects.squeezed(text)
    faults = []
    for path, value in json_schemas.marked(output, options.json_schema):
        if value in text:
            continue
        hint = "copy it from the text as it stands, or remove x-in-text from that field"
        if json_objects.squeezed(value) in folded:
            hint = f"it differs in width, case or white space alone: {hint}"
        shown = value if len(value) <= 40 else value[:39] + "…"
        faults.append(Fault("value_not_in_text", f"{path} is {shown!r}, which is not in the text", "output", hint))
    return faults


def normalized(record: Record, forms: Sequence[str], options: Options) -> Record:
    """The record after the declared `data.normalize` steps: the text, and the strings of the object as what was copied
    from it. Keys stay as they are, and so do the strings that would break the schema then (names of an `enum`)."""
    output = _normalized(record.output, forms, options.json_schema)
    return record.model_copy(update={"text": normalization.applied(record.text, forms), "output": output})


def _normalized(value: Any, forms: Sequence[str], schema: dict[str, Any]) -> Any:
    if "anyOf" in schema:
        schema = next((one for one in schema["anyOf"] if json_schemas.is_valid(value, one)), schema)
    if isinstance(value, str):
        changed = normalization.applied(value, forms)
        return changed if changed == value or json_schemas.is_valid(changed, schema) else value
    if isinstance(value, list):
        return [_normalized(inner, forms, schema.get("items", {})) for inner in value]
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        return {key: _normalized(inner, forms, properties.get(key, {})) for key, inner in value.items()}
    return value


# Answers and their scores


def parse(text: str, options: Options) -> dict[str, Any] | None:
    """The one JSON object that a generated text holds, whether it follows the schema or not; else None."""
    found = json_objects.only_object(text)
    return None if found is None else json_schemas.in_order(found, options.json_schema)


_N_FIRST = 4  # columns: rows, parsed, valid, exactly right; then right, gold and predicted leaves of each field


def count(
    golds: Sequence[dict[str, Any]], predictions: Sequence[dict[str, Any] | None], options: Options
) -> np.ndarray:
    """Per row what the metrics sum up, shape (n_rows, 4 + 3 * (F + 1)), for F top-level fields and one for all others.

    Leaves are (path, value) pairs, as a multiset: `json_objects.leaves`. An answer that could not be read counts as one
    wrong leaf of the last field: silence would be right otherwise where a text holds nothing.
    """
    fields = list(options.json_schema["properties"])
    rows = [_row(wanted, given, fields, options) for wanted, given in zip(golds, predictions, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), _N_FIRST + 3 * (len(fields) + 1))


def _row(wanted: dict[str, Any], given: dict[str, Any] | None, fields: list[str], options: Options) -> list[float]:
    of_gold, of_answer = Counter(json_objects.leaves(wanted)), Counter(json_objects.leaves(given))
    is_exact = given is not None and of_gold == of_answer
    is_valid = given is not None and json_schemas.is_valid(given, options.json_schema)
    parts = []
    for leaves in (of_gold & of_answer, of_gold, of_answer):
        of_field = Counter({name: 0 for name in fields})
        for (path, _), n in leaves.items():
            of_field[path[0]] += n
        parts.append([of_field[name] for name in fields] + [sum(of_field.values()) - sum(map(of_field.get, fields))])
    parts[2][-1] += given is None
    return [1, given is not None, is_valid, is_exact, *parts[0], *parts[1], *parts[2]]


def _of_fields(counts: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right, gold and predicted leaves of each field, each of shape (..., F + 1), the last one all others."""
    return label_scores.found(counts, _N_FIRST, len(options.json_schema["properties"]) + 1)


def score_counts(counts: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    """Metric name -> values of shape (...,) for summed counts of shape (..., 4 + 3 * (F + 1)); NaN where undefined.

    field_f1 is micro-averaged over all leaves, macro_field_f1 the mean over the schema's fields that occur. exact_match
    asks for the same leaves, so that the order of arrays does not matter; valid_json_rate for an object that follows
    the schema, parse_rate for any object.
    """
    counts = np.asarray(counts, dtype=np.float64)
    right, n_gold, n_predicted = _of_fields(counts, options)
    of_fields = answers.ratio(2 * right, n_gold + n_predicted)[..., :-1]
    right, n_gold, n_predicted = right.sum(-1), n_gold.sum(-1), n_predicted.sum(-1)
    n_rows = counts[..., 0]
    return {
        "field_f1": answers.ratio(2 * right, n_gold + n_predicted),
        "field_precision": answers.ratio(right, n_predicted),
        "field_recall": answers.ratio(right, n_gold),
        "macro_field_f1": label_scores.mean_of_defined(of_fields),
        "exact_match": answers.ratio(counts[..., 3], n_rows),
        "valid_json_rate": answers.ratio(counts[..., 2], n_rows),
        "parse_rate": answers.ratio(counts[..., 1], n_rows),
    }


def class_ratios(counts: np.ndarray, options: Options) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (numerators, denominators), each of shape (..., F): the numbers of each top-level field."""
    return label_scores.ratios_of_found(*(part[..., :-1] for part in _of_fields(counts, options)))


def per_class(counts: np.ndarray, options: Options) -> dict[str, dict[str, float | None]]:
    """Field -> precision, recall, f1 (None where undefined) and support, its gold leaves."""
    support = _of_fields(counts, options)[1][..., :-1]
    return label_scores.table(class_ratios(counts, options), support, options.json_schema["properties"])


def score(golds: Sequence[dict[str, Any]], predictions: Sequence[dict[str, Any] | None], options: Options) -> Scores:
    """All metrics over a corpus; what is undefined is None, with its name in `undefined`."""
    counts = count(golds, predictions, options).sum(0)
    return label_scores.scores(score_counts(counts, options), per_class(counts, options))


def reward(record: Record, text: str, options: Options) -> float:
    """Field F1 of a generated object with the gold one; 0.0 for one that does not follow the schema."""
    said = parse(text, options)
    if said is None or not json_schemas.is_valid(said, options.json_schema):
        return 0.0
    wanted, given = Counter(json_objects.leaves(record.output)), Counter(json_objects.leaves(said))
    n_all = wanted.total() + given.total()
    return 2 * (wanted & given).total() / n_all if n_all else 1.0
