"""Tries a proposal on the rows themselves, with the task type's own checks: which options make most rows readable, how
many rows are not, how long prompts and answers are."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from creation import inventory, json_schema, recognition
from creation.recognition import AGAINST, FAVOR, NOT_MENTIONED, SCALE
from creation.sources import sample
from tasklib import task_types
from tasklib.data import spans
from tasklib.reading.records import Row
from tasklib.summary import Problem

if TYPE_CHECKING:
    from creation.proposal import Proposal

MAX_LENGTH = 4096  # tokens of a row: the most that a config begins with
RARE = 0.02  # share of rows that another name of one stance may have at most
GOOD = 0.9  # share of readable rows from which the usual options are taken without trying others
# Tokens of a character, generously: SmolLM2's tokenizer, made for English, needs 2.1 for a Chinese one on average, and
# 2.5 in some texts; English has 0.26, with formulas up to 0.6. Many tokenizers make a token of each digit, and some of
# each mark of JSON; what lies beyond U+FFFF (emoji) is up to four bytes, each a token at worst.
TOKENS_OF_HAN, TOKENS_OF_LETTER, TOKENS_OF_MARK, TOKENS_OF_RARE = 2.5, 0.6, 1, 4
# Options that are tried in this order: what a form leaves open and only the rows can tell.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "offsets": [
        {},
        {"offsets": {"end": "inclusive"}},
        {"offsets": {"unit": "utf16"}},
        {"offsets": {"end": "inclusive", "unit": "utf16"}},
    ],
    "mention": [{}, {"mention": "free"}],
    "repeats": [{}, {"repeats": "merge"}],
}
NO_LABEL = {"無", "无", "none", "null", "n/a", "na", "以上皆非", "都不是"}
POLARITIES = {
    "zh-TW": {"-2": "非常負面", "-1": "負面", "0": "中性", "1": "正面", "2": "非常正面"},
    "en": {"-2": "very negative", "-1": "negative", "0": "neutral", "1": "positive", "2": "very positive"},
}


class Sizes(NamedTuple):
    """Tokens of the longest prompt and the longest answer, estimated generously from their characters."""

    prompt: int
    answer: int


class _Trial(NamedTuple):
    """What rows are with some options: the share of readable ones, their records, the faults of the others by code and
    the first message of each."""

    share: float
    options: dict[str, Any]
    records: list[Any]
    faults: Counter[str]
    first: dict[str, str]


def estimated_tokens(text: str) -> int:
    n_rare = sum(char > "\uffff" for char in text)
    n_han = (
        sum("\u2e80" <= char <= "\u9fff" or "\uac00" <= char <= "\ud7af" or char > "\uff00" for char in text) - n_rare
    )
    n_marks = sum(char.isascii() and not (char.isalpha() or char == " ") for char in text)
    n_letters = len(text) - n_rare - n_han - n_marks
    each = (n_han, TOKENS_OF_HAN), (n_letters, TOKENS_OF_LETTER), (n_marks, TOKENS_OF_MARK), (n_rare, TOKENS_OF_RARE)
    return math.ceil(sum(n * tokens for n, tokens in each))


def fit(proposal: Proposal, given: Mapping[str, Any], *, tell: bool) -> None:
    """Adds the options that only rows can tell and, with `tell`, what the type's own checks say of them. `given`
    are keys of `task:` that the user wrote; they stay as they are."""
    module = task_types.load(proposal.type)
    fields = module.Options.model_fields
    rows = _mapped(proposal)
    for propose, names in OPTIONS.items():
        if known := [name for name in names if name in fields]:
            propose(proposal, rows, [name for name in known if name not in given])
    task = {**proposal.task, **{key: value for key, value in given.items() if value is not None}}
    variants = [VARIANTS[name] for name in VARIANTS if name in fields and name not in given]
    tried: list[_Trial] = []
    for parts in itertools.product(*variants):
        variant = {key: value for part in parts for key, value in part.items()}
        options = _options(module, {**task, **variant})
        if options is None:
            return  # the schema says what is wrong with it
        records, faults, first = _readable(module, rows, options)
        tried.append(_Trial(len(records) / max(1, len(rows)), variant, records, faults, first))
        if tried[-1].share >= GOOD and "offsets" not in fields:
            break
    best = next((one for one in tried if one.share >= GOOD), max(tried, key=lambda one: one.share))
    if "offsets" in fields:
        best = _by_mentions(proposal, best, tried)
    _, variant, records, faults, first = best
    proposal.options |= variant
    if tell:
        _tell(proposal, len(rows), len(records), faults, first)
    if records:
        proposal.sizes = _sizes(module, records, _options(module, {**task, **variant}), proposal.language)
        _warn_of_length(proposal, module)


def _by_mentions(proposal: Proposal, usual: _Trial, tried: Sequence[_Trial]) -> _Trial:
    """Of the ways to read offsets that make rows readable, the one that cuts mentions where words end."""
    least = max(GOOD, max(one.share for one in tried) - RARE)
    varied = [(spans.variety(one.records), one) for one in tried if one.share >= least]
    variety, best = max(varied, key=lambda pair: pair[0], default=(0, usual))
    if best is not usual and variety > spans.MORE_VARIED * spans.variety(usual.records):
        pairs = zip(spans.mentions(best.records), spans.mentions(usual.records), strict=False)
        one, other = next(((a, b) for a, b in pairs if a != b), ("", ""))
        offsets = spans.convention(best.options["offsets"])
        message = f"offsets are read as {offsets}: mentions like {one!r}; as they stand, {other!r}"
        hint = "look at the mentions of the proposal; if they are wrong, write task.offsets into the file of --answers"
        proposal.warnings.append(Problem(code="offsets_from_data", message=message, field="task.offsets", hint=hint))
        usual = best
    proposal.mentions = spans.mentions(usual.records)[:5]
    return usual


def _mapped(proposal: Proposal) -> list[dict[str, Any]]:
    """Role -> value of the first rows of each file."""
    return [
        {role: item.values.get(column) for role, column in proposal.fields.items()} for item in _looked_at(proposal)
    ]


def _looked_at(proposal: Proposal) -> list[Row]:
    return [item for source in proposal.sources for item in sample(source) if isinstance(item, Row)]


def _options(module: Any, task: Mapping[str, Any]) -> Any:
    try:
        return module.Options.model_validate(task)
    except ValidationError:
        return None


def _readable(
    module: Any, rows: Sequence[Mapping[str, Any]], options: Any
) -> tuple[list[Any], Counter[str], dict[str, str]]:
    """The records, the faults of the other rows by code, and the first message of each."""
    records, faults, first = [], Counter(), {}
    for values in rows:
        record, found = module.read_record(values, options)
        if record is not None:
            records.append(record)
            continue
        for fault in found:
            faults[fault.code] += 1
            first.setdefault(fault.code, fault.message)
    return records, faults, first


def _tell(proposal: Proposal, n_rows: int, n_readable: int, faults: Counter[str], first: Mapping[str, str]) -> None:
    """A warning where rows are not what the type needs; a problem where hardly one is."""
    if n_readable == n_rows or not faults:
        return
    listed = "; ".join(f"{code} ({n}): {first[code]}" for code, n in faults.most_common(3))
    message = f"{n_rows - n_readable} of {n_rows} rows looked at cannot be read as {proposal.type}: {listed}"
    if n_readable == 0:
        hint = "name other columns with --fields ROLE=COLUMN,…, or another --type"
        proposal.problems.append(Problem(code="no_readable_row", message=message, field="data.fields", hint=hint))
        return
    hint = "01_validate_data.py names each line and says what to do"
    proposal.warnings.append(Problem(code="unreadable_rows", message=message, field="data.fields", hint=hint))


def _warn_of_length(proposal: Proposal, module: Any) -> None:
    """Rows that are longer than what a config begins with."""
    length = sum(proposal.sizes)
    if length <= MAX_LENGTH:
        return
    message = f"the longest row has about {length} tokens (estimated); the config begins with {MAX_LENGTH}"
    hint = "03_train.py tells which rows do not fit: raise training.max_length if the machine allows it"
    if "windows" in module.Options.model_fields:
        hint += ", or cut long texts into pieces with task.windows"
    elif module.MAY_SHORTEN:
        hint += ", or cut long texts with prompt.shorten"
    proposal.warnings.append(Problem(code="long_rows", message=message, field="training.max_length", hint=hint))


def _sizes(module: Any, records: Sequence[Any], options: Any, language: str | None) -> Sizes:
    instruction = module.default_instruction(options, language or "zh-TW")
    prompts, answers = [0], [0]
    for record in records:
        for piece in module.pieces(record, options, training=True):
            turns = sum(estimated_tokens(turn["content"]) for turn in module.history(piece))
            prompts.append(turns + estimated_tokens(module.prompt(piece, options, instruction)))
            both = [module.answer(piece, options), getattr(piece, "rejected", "")]
            answers.append(max(estimated_tokens(text) for text in both if isinstance(text, str)))
    return Sizes(max(prompts), max(answers))


# Keys of `task:` beside the labels.


def words_of_scale(counts: Mapping[str, int], language: str | None) -> dict[str, str] | None:
    """Words for polarities that are numbers, where they are -1 to 1 or -2 to 2."""
    found = {value for value in counts if value.strip().casefold() not in NOT_MENTIONED or value in SCALE}
    if not ({"-1", "1"} <= found <= SCALE):
        return None
    words = POLARITIES["en" if language == "en" else "zh-TW"]
    return {number: words[number] for number in sorted(found, key=int)}


def _sides(proposal: Proposal, rows: Sequence[Mapping[str, Any]], missing: Sequence[str]) -> None:
    """Which stance is for the target and which against it. Of several names for one side, the one nearly all rows have
    is taken."""
    names, counts, unclear = list(proposal.labels or proposal.counts), proposal.counts, []
    for key, words in (("favor", FAVOR), ("against", AGAINST)):
        found = sorted((n for n in names if n.strip().casefold() in words), key=lambda n: -counts.get(n, 0))
        if len(found) > 1:
            _same_side(proposal, key, found)
        if key not in missing:
            continue
        often = [name for name in found if counts.get(name, 0) > RARE * sum(counts.values())]
        if len(often) == 1 or (len(found) == 1 and not counts):
            proposal.options[key] = (often or found)[0]
        else:
            of = [f"{name} ({counts.get(name, 0)})" for name in often or names]
            unclear.append(f"{key} is one of {', '.join(of)}")
    if unclear:
        sides = ", ".join(f"{key}: {proposal.options.get(key, 'NAME')}" for key in ("favor", "against"))
        hint = f"write `task: {{{sides}}}` into a file and give it as --answers FILE"
        proposal.problems.append(Problem(code="which_stance", message="; ".join(unclear), field="task", hint=hint))


def _same_side(proposal: Proposal, key: str, found: Sequence[str]) -> None:
    """Two names of one side would be two classes, of which a model must guess one."""
    rows = inventory.rows_of(proposal.sources, "stance", proposal.fields["stance"], None, {*found[1:]})
    message = f"{', '.join(map(repr, found))} all seem to be {key}: {inventory.places(rows)}"
    hint = f"if they mean the same: write {found[0]!r} in these rows of a copy of the file, and create the task from it"
    place = {"file": rows[0][0].file, "line": rows[0][0].line} if rows else {}
    problem = Problem(code="same_side", message=message, field="task.stances", hint=hint, **place)
    proposal.warnings.append(problem)


def _schema(proposal: Proposal, rows: Sequence[Mapping[str, Any]], missing: Sequence[str]) -> None:
    """The schema of the objects, taken from the rows looked at."""
    if not missing:
        return
    objects = [recognition.as_json(values.get("output")) for values in rows]
    n_lists = sum(isinstance(value, list) for value in objects)
    objects = [value for value in objects if isinstance(value, dict)]
    if n_lists and not objects:
        message = (
            f"column {proposal.fields['output']!r} holds lists, {n_lists} of {len(rows)} rows looked at, and no object"
        )
        hint = task_types.load("extraction").LIST_HINT
        proposal.problems.append(
            Problem(code="no_readable_row", message=message, field="data.fields.output", hint=hint)
        )
    if not objects:
        return
    odd = json_schema.odd(objects, RARE)
    usual = [value for number, value in enumerate(objects) if number not in odd]
    proposal.options["json_schema"] = json_schema.infer(usual)
    if odd:
        proposal.warnings.append(_left_out(proposal, odd))
    message = f"taken from {len(usual)} objects: {_properties(proposal.options['json_schema'])}"
    hint = "check types, required and enum in task_definition.yaml: later rows may hold what these do not"
    proposal.warnings.append(Problem(code="schema_from_data", message=message, field="task.json_schema", hint=hint))


def _left_out(proposal: Proposal, odd: Mapping[int, str]) -> Problem:
    """Says which objects the schema was not taken from, and why."""
    column = proposal.fields["output"]
    rows = [row for row in _looked_at(proposal) if isinstance(recognition.as_json(row.values.get(column)), dict)]
    found = [(rows[number], why) for number, why in odd.items()]
    listed = "; ".join(f"{Path(row.file).name}:{row.line} {why}" for row, why in found[:10])
    listed += f"; … and {len(found) - 10} more" if len(found) > 10 else ""
    message = f"{len(found)} objects differ from nearly all others and do not fit the schema: {listed}"
    hint = "correct these rows in a copy of the file: 01_validate_data.py refuses them; if they are right, widen "
    hint += "task.json_schema in task_definition.yaml (type: [integer, string], or take the name out of required)"
    (first, _), *_ = found
    return Problem(
        code="odd_objects", message=message, file=first.file, line=first.line, field="task.json_schema", hint=hint
    )


def _properties(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", [])
    shown = []
    for name, inside in schema.get("properties", {}).items():
        kind = inside.get("type", "any")
        kind = "/".join(kind) if isinstance(kind, list) else kind
        shown.append(
            f"{name} {kind}" + (" of a closed set" if "enum" in inside else "") + ("" if name in required else "?")
        )
    return ", ".join(shown[:30])


def _none(proposal: Proposal, rows: Sequence[Mapping[str, Any]], missing: Sequence[str]) -> None:
    """Rows without any label, where a row may have several: an empty cell, or a word for none."""
    if not missing:
        return
    words = [label for label in proposal.labels or {} if label.strip().casefold() in NO_LABEL]
    empty = sum(values.get("labels") in (None, [], "") for values in rows)
    if not empty and not words:
        return
    proposal.options["allow_none"] = True
    if words:
        proposal.labels = {label: text for label, text in proposal.labels.items() if label not in words}
        proposal.options["none_answer"] = words[0]
    elif proposal.language == "en":
        proposal.options["none_answer"] = "none"
    what = f"{words[0]!r} is taken as no label" if words else f"{empty} of {len(rows)} rows looked at have no label"
    hint = "set allow_none: false if every row must have one; remove rows that are not labelled yet in a copy"
    proposal.warnings.append(Problem(code="rows_of_none", message=what, field="task.allow_none", hint=hint))


OPTIONS = {_sides: ("favor", "against"), _schema: ("json_schema",), _none: ("allow_none",)}  # keys that each proposes
