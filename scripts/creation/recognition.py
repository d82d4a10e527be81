"""Which task type the rows are of: each type's forms as people have them, with the columns, options and reasons.

What is looked at is the shape of the values first (turns, spans, tags, objects) and the names of columns second. The
fields of a form are the roles of `FORMS` in tasklib/task_types/.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from creation import columns
from creation.columns import has_name, plain_name
from tasklib import task_types
from tasklib.data import spans

LOOKED_AT = 300  # filled cells of a column that say what it holds
LABEL_OPTIONS = ("labels", "entity_types", "sentiments", "stances")  # keys of `task:` that --labels fills

TAG = re.compile(r"(O|[BIESMLU]-\S+)$")
PLACEHOLDER = "$T$"
POLARITY = {
    "positive", "negative", "neutral", "pos", "neg", "neu", "mixed", "conflict", "bullish", "bearish", "正面", "負面",
    "负面", "中性", "正向", "負向", "负向", "中立", "積極", "积极", "消極", "消极", "利多", "利空", "看多", "看空",
    "看漲", "看跌", "好評", "好评", "差評", "差评", "中評", "中评", "褒", "貶", "贬", "褒義", "貶義", "正", "負", "负",
    "中", "正評", "负评", "負評",
}  # fmt: skip
SCALE = {"-2", "-1", "0", "1", "2"}  # polarities as numbers; -2 stands for "not mentioned" in wide tables
FAVOR = {"favor", "favour", "for", "pro", "support", "agree", "支持", "贊成", "赞成", "同意", "正方", "贊同", "赞同"}
AGAINST = {"against", "con", "oppose", "deny", "disagree", "反對", "反对", "不支持", "不同意", "不贊成", "反方"}
NO_STANCE = {"none", "neutral", "neither", "query", "comment", "中立", "無", "无", "無立場", "无立场", "不明", "其他"}

ENTITY_NAMES = {
    "entity", "entities", "aspect", "aspectterm", "aspectcategory", "term", "opiniontarget", "target", "實體", "实体",
    "面向", "評價對象", "评价对象", "方面", "方面詞", "方面词", "對象", "对象", "標的", "标的", "屬性", "属性",
}  # fmt: skip
SENTIMENT_NAMES = {
    "sentiment", "polarity", "opinion", "情感", "情緒", "情绪", "極性", "极性", "評價", "评价", "傾向", "倾向", "label",
    "標籤", "标签",
}  # fmt: skip
TARGET_NAMES = {"target", "topic", "issue", "claim", "議題", "议题", "主題", "主题", "話題", "话题", "對象", "对象"}
STANCE_NAMES = {"stance", "立場", "立场", "position", "態度", "态度"}
# (role, names) of two texts of which the second answers the first
ANSWERED = (
    ("prompt", "response", {"prompt", "question", "query", "q", "instruction", "input", "提問", "提问", "發問", "問題",
                            "问题", "輸入", "输入", "問", "問句", "指令", "source"},
     {"response", "completion", "answer", "output", "reply", "a", "回答", "回覆", "回复", "回應", "回应", "答案", "答",
      "答覆", "答复", "解答", "輸出", "输出", "target", "translation"}),
    ("document", "summary", {"document", "article", "text", "body", "dialogue", "content", "內文", "内文", "本文",
                             "正文", "原文", "文章", "全文", "內容", "内容", "abstract"},
     {"summary", "highlights", "abstract", "title", "headline", "tldr", "摘要", "標題", "标题", "總結", "总结"}),
)  # fmt: skip
ANNOTATORS = {"annotator", "rater", "coder", "judge", "標註者", "标注者", "標註人", "標註員", "評分者"}
BESIDE = {"meta", "metadata", "info", "extra", "source", "attributes", "attrs", "features", "props"}  # of a row
TURNS = ("messages", "conversations", "conversation", "dialog", "dialogue")
SHORTER = 3  # times: what is so much shorter than the text beside it is likelier its summary than its answer

STARTS, ENDS = (*spans.START_KEYS, "from"), (*spans.END_KEYS, "to")
ITEM_LABELS = (*spans.TYPE_KEYS, "category", "sentiment", "polarity", "labels")
ITEM_TEXTS = ("entity", "aspect", "target", "term", "text", "value", "mention", "name", "word", "span", "surface")
ITEM_SENTIMENTS = ("sentiment", "polarity", "label", "tag", "opinion")


@dataclass(frozen=True)
class Reading:
    """One way to read the data: a task type, role -> column, keys of `task:` and of each file that the form asks for,
    and why. `others` are readings that are as good."""

    type: str
    fields: dict[str, str]
    why: str
    options: dict[str, Any] = field(default_factory=dict)
    file: dict[str, Any] = field(default_factory=dict)
    others: tuple[Reading, ...] = ()


def format_of(head: str) -> str | None:
    """`conll` or `triplet`, where the first 16 000 characters of a text file show rows of more than one line."""
    lines = head.splitlines()
    filled = [line for line in lines if line.strip() and not line.startswith("-DOCSTART-")]
    tokens = [parts for line in filled if 2 <= len(parts := line.split()) <= 5 and TAG.match(parts[-1])]
    words = sum(len(parts[0]) for parts in tokens) <= 15 * len(tokens)
    if len(filled) >= 5 and len(tokens) >= 0.9 * len(filled) and words and any(parts[-1] != "O" for parts in tokens):
        return "conll"
    triples = [lines[start : start + 3] for start in range(0, min(len(lines) - 2, 60), 3)]
    if triples and all(PLACEHOLDER in triple[0] and PLACEHOLDER not in triple[1] for triple in triples):
        return "triplet"
    return None


class View:
    """Rows to look at, and the columns that the user named."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], given: Mapping[str, str] | None = None) -> None:
        self.rows, self.given = rows, dict(given or {})
        self.names = list(dict.fromkeys(name for row in rows for name in row))

    def values(self, name: str, limit: int = LOOKED_AT) -> list[Any]:
        """The first filled cells of a column."""
        found: list[Any] = []
        for row in self.rows:
            value = row.get(name)
            if value is not None and value != "" and value != []:
                found.append(value)
                if len(found) == limit:
                    break
        return found

    def is_all(self, name: str, test: Callable[[Any], bool]) -> bool:
        """Whether a column is filled somewhere, and `test` holds for at least 95 % of what was looked at."""
        found = self.values(name)
        return bool(found) and sum(map(test, found)) >= 0.95 * len(found)

    def named(self, *names: str) -> str | None:
        """The first column that is called exactly so; case, width and separators do not matter."""
        wanted = [plain_name(name) for name in names]
        return next((name for want in wanted for name in self.names if plain_name(name) == want), None)

    def texts(self, but: Sequence[str | None] = ()) -> list[str]:
        """Columns of texts, those that are called so first, then the longest."""

        def rank(name: str) -> tuple[bool, float]:
            return not has_name(name, columns.TEXT_NAMES), -self.length(name)

        found = [name for name in self.names if name not in but and self.is_all(name, _is_text)]
        return sorted((name for name in found if not self.is_all(name, _is_short_code)), key=rank)

    def text(self, role: str = "text", but: Sequence[str | None] = ()) -> str | None:
        """The column of the text: the one given, or the likeliest."""
        return self.given.get(role) or next(iter(self.texts(but)), None)

    def length(self, name: str) -> float:
        """Characters of a cell on average."""
        found = [value for value in self.values(name) if isinstance(value, str)]
        return sum(map(len, found)) / max(1, len(found))

    def different(self, name: str) -> float:
        """Different cells, as a share of the filled ones."""
        found = [str(value) for value in self.values(name)]
        return len(set(found)) / max(1, len(found))


def recognise(view: View, wanted: Sequence[str]) -> Reading | None:
    """The first reading that fits, among the types `wanted`; None where only a table of texts and labels is left, which
    `proposal` judges. The order is from shapes that cannot be mistaken to names of columns."""
    complete = _as_given(view, wanted)
    if complete and {*complete.fields.values()} <= {*view.names}:
        return complete
    for recogniser in RECOGNISERS:
        reading = recogniser(view)
        if reading is None:
            continue
        readings = [reading, *reading.others]
        fitting = [one for one in readings if one.type in wanted and _agrees(one, view.given)]
        if fitting:
            return replace(fitting[0], fields={**fitting[0].fields, **view.given}, others=tuple(fitting[1:]))
    return complete


def types_with(roles: Sequence[str], options: Sequence[str]) -> list[str]:
    """The task types of which a form has all these roles, and `task:` all these keys."""
    found = []
    for name in task_types.names():
        module = task_types.load(name)
        has_roles = any({*roles} <= {*form.required, *form.optional} for form in module.FORMS)
        if has_roles and {*options} <= {*module.Options.model_fields}:
            found.append(name)
    return found


def _as_given(view: View, wanted: Sequence[str]) -> Reading | None:
    """What the user said completely: a form of one type has all its columns."""
    fitting = []
    for name in wanted:
        for form in task_types.load(name).FORMS:
            if {*form.required} <= {*view.given} <= {*form.required, *form.optional}:
                fitting.append(name)
                break
    return Reading(fitting[0], dict(view.given), "given") if len(fitting) == 1 else None


def _agrees(reading: Reading, given: Mapping[str, str]) -> bool:
    """Whether the columns that the user named belong to a form that the reading has."""
    roles = {*reading.fields, *given}
    return any(
        {*form.required} <= roles <= {*form.required, *form.optional} for form in task_types.load(reading.type).FORMS
    )


# What a cell holds.


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_short_code(value: Any) -> bool:
    return isinstance(value, str) and (columns.is_number(value) or columns.is_date(value))


def _is_turns(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict) and bool({"role", "from"} & {*value[0]})
    )


def _is_scalar(value: Any) -> bool:
    return not isinstance(as_json(value), list | dict)


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _is_items(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


def as_json(value: Any) -> Any:
    """An object or a list, also where a cell holds it as JSON text; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def is_polarity(value: Any) -> bool:
    return isinstance(value, str) and value.strip().casefold() in POLARITY


# The forms, one function each: what cannot be mistaken first.


def _preference(view: View) -> Reading | None:
    chosen = view.given.get("chosen") or view.named("chosen")
    rejected = view.given.get("rejected") or view.named("rejected")
    if not chosen or not rejected:
        return None
    fields = {"chosen": chosen, "rejected": rejected}
    turns = next((name for name in view.names if plain_name(name) in TURNS and view.is_all(name, _is_turns)), None)
    prompt = view.given.get("prompt") or view.named("prompt", "question", "instruction", "query", "input")
    if turns and not view.given.get("prompt"):
        fields = {"conversations": turns, **fields}
    elif prompt:
        fields = {"prompt": prompt, **fields, **_present(view, "system", "history")}
    return Reading("preference", fields, "a chosen and a rejected answer in each row")


def _present(view: View, *roles: str) -> dict[str, str]:
    """Optional roles whose column is called like them."""
    return {role: name for role in roles if (name := view.named(role))}


def _question(view: View) -> Reading | None:
    names = {role: view.given.get(role) or view.named(role) for role in ("context", "question", "answers")}
    names["answers"] = names["answers"] or view.named("answer")
    if not all(names.values()):
        return None
    return Reading("generation", names, "questions about a context, with their answers (SQuAD form)")


def _chat(view: View) -> Reading | None:
    turns = next((name for name in view.names if view.is_all(name, _is_turns)), None)
    if turns is None:
        return None
    return Reading("generation", {"messages": turns}, "a conversation in each row: turns with a role and a text")


def _items(view: View) -> Reading | None:
    """Lists of objects or triples beside a text: spans with a type, entities with a polarity."""
    for name in view.names:
        if not view.is_all(name, lambda value: isinstance(as_json(value), list)):
            continue
        items = [item for value in view.values(name) for item in _list(as_json(value))]
        text = view.text(but=[name])
        if not items or text is None:
            continue
        if all(isinstance(item, dict) for item in items):
            reading = _of_objects(view, text, name, items)
        else:
            triples = [item for item in items if _is_triple(item)]
            reading = _spans(view, text, name, [item[2] for item in triples]) if len(triples) == len(items) else None
        if reading:
            label = _label(view, but=[name, text])
            why = f"column {label!r} repeats a few labels"
            alone = [Reading("classification", {"text": text, "label": label}, why)] if label else []
            return replace(reading, others=(*reading.others, *alone))
    return None


def _label(view: View, but: Sequence[str]) -> str | None:
    """A column that is called label, and repeats a few values."""
    names = columns.LABEL_NAMES | columns.MAYBE_LABEL_NAMES
    found = (name for name in view.names if name not in but and has_name(name, names))
    return next((name for name in found if view.is_all(name, _is_scalar) and _is_repeated(view, name)), None)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_triple(item: Any) -> bool:
    """Doccano's [start, end, label]."""
    return isinstance(item, list) and [type(part) for part in item] == [int, int, str]


def _of_objects(view: View, text: str, name: str, items: list[dict[str, Any]]) -> Reading | None:
    keys = Counter(key for item in items for key in item)
    common = [key for key, n in keys.items() if n >= 0.9 * len(items)]
    sentiment = next((key for key in ITEM_SENTIMENTS if key in common and _says_polarity(items, key)), None)
    entity = next((key for key in ITEM_TEXTS if key in common and key != sentiment), None)
    has_offsets = bool({*STARTS} & {*common}) and bool({*ENDS} & {*common})
    label = next((key for key in ITEM_LABELS if key in common and key not in (entity, sentiment)), None)
    if sentiment and entity:
        return _polarities(view, text, name, entity, sentiment, has_offsets)
    if has_offsets and (label or sentiment):
        return _spans(view, text, name, [item.get(label or sentiment) for item in items])
    if entity and label:
        return _spans(view, text, name, [item.get(label) for item in items])
    return None


def _says_polarity(items: Sequence[Mapping[str, Any]], key: str) -> bool:
    found = Counter(str(item.get(key)).strip().casefold() for item in items)
    known = sum(n for value, n in found.items() if value in POLARITY)
    named = key in ("sentiment", "polarity") and len(found) <= 10
    return known >= 0.9 * found.total() or (named and {*found} <= SCALE)


def _polarities(view: View, text: str, name: str, entity: str, sentiment: str, has_offsets: bool) -> Reading:
    taken = {*view.names} - {name}  # `explode` calls a key that the row has too <column>.<key>
    columns_of = {key: f"{name}.{key}" if key in taken else key for key in (entity, sentiment)}
    each = Reading(
        "entity_sentiment",
        {"text": text, "entity": columns_of[entity], "sentiment": columns_of[sentiment]},
        f"column {name!r} lists entities, each with a polarity: a row for each of them",
        file={"explode": {"column": name}},
    )
    why = f"column {name!r} lists entities, each with a polarity: one answer names them all"
    joint = Reading("entity_sentiment_pairs", {"text": text, "pairs": name}, why)
    spans = Reading("ner", {"text": text, "entities": name}, f"column {name!r} lists spans with a label each")
    if has_offsets:
        return replace(each, others=(joint, spans))
    return replace(joint, others=(each,))


def _spans(view: View, text: str, name: str, labels: Sequence[Any]) -> Reading:
    why = f"column {name!r} lists spans of the text, each with a type"
    reading = Reading("ner", {"text": text, "entities": name}, why)
    return reading if any(labels) else replace(reading, why=f"column {name!r} lists spans of the text")


def _tags(view: View) -> Reading | None:
    """Two lists of equal length in each row: tokens and their tags, as text or as numbers."""
    lists = [name for name in view.names if view.is_all(name, lambda value: isinstance(as_json(value), list))]
    for tags in sorted(lists, key=lambda name: "tag" not in name.lower()):
        if not view.is_all(tags, _is_tags):
            continue
        for tokens in lists:
            if tokens != tags and view.is_all(tokens, lambda value: _is_strings(as_json(value))):
                pairs = [(row.get(tokens), row.get(tags)) for row in view.rows[:LOOKED_AT] if row.get(tags)]
                alike = sum(len(_list(as_json(a))) == len(_list(as_json(b))) for a, b in pairs)
                if alike >= 0.9 * len(pairs):
                    why = f"columns {tokens!r} and {tags!r} hold lists of the same length: tokens and their tags"
                    return Reading("ner", {"tokens": tokens, "tags": tags}, why)
    return None


def _is_tags(value: Any) -> bool:
    parts = _list(as_json(value))
    return bool(parts) and all(isinstance(part, str) and TAG.fullmatch(part) for part in parts)


INLINE = re.compile(r"<(?P<open>[^<>/\s]+)>[^<>]{1,60}</(?P=open)>|\[[^\[\]]{1,60}\]\((?P<type>[\w.-]+)\)")


def _tagged(view: View) -> Reading | None:
    for name in view.texts():
        found = [value for value in view.values(name) if INLINE.search(value)]
        html = sum(bool(re.search(r"</?(p|div|br|span|b|i|a|li|em|strong)\b", value, re.I)) for value in found)
        if len(found) >= 0.5 * max(4, len(view.values(name))) and html < 0.2 * len(found):
            return Reading("ner", {"tagged": name}, f"column {name!r} holds texts in which entities stand in tags")
    return None


def _objects(view: View) -> Reading | None:
    """A text and an object that is made of it, as an object or as JSON text."""
    for name in view.names:
        if name not in view.given.values() and view.is_all(name, lambda value: isinstance(as_json(value), dict)):
            text = view.text(but=[name])
            beside = plain_name(name) in BESIDE or (text and _label(view, but=[name, text]))
            if text and view.length(text) >= 4 and not beside:
                why = f"column {name!r} holds an object of fields beside each text"
                return Reading("extraction", {"text": text, "output": name}, why)
    return None


def _label_lists(view: View) -> Reading | None:
    """A text and a list of strings that come again in other rows."""
    for name in view.names:
        if not view.is_all(name, lambda value: _is_strings(as_json(value))):
            continue
        labels = Counter(label for value in view.values(name) for label in _list(as_json(value)))
        text = view.text(but=[name])
        if text is None or not labels:
            continue
        if not has_name(name, columns.LABEL_NAMES | columns.MAYBE_LABEL_NAMES) and _label(view, but=[name, text]):
            continue  # keywords beside a text and its label
        if len(labels) <= max(columns.FEW_VALUES, labels.total() // 5):
            why = f"column {name!r} lists the labels of each text: {len(labels)} different ones"
            return Reading("multi_label_classification", {"text": text, "labels": name}, why)
    return None


def _stance(view: View) -> Reading | None:
    stance = view.given.get("stance") or next((n for n in view.names if plain_name(n) in STANCE_NAMES), None)
    if stance is None:
        stance = next((name for name in view.names if has_name(name, columns.LABEL_NAMES) and _says_stance(view, name)),
                      None)  # fmt: skip
    target = view.given.get("target") or next((n for n in view.names if plain_name(n) in TARGET_NAMES), None)
    if not stance or not target or target == stance or not _is_repeated(view, stance):
        return None
    text = view.text(but=[stance, target])
    says_so = plain_name(stance) in STANCE_NAMES
    if text is None or (not says_so and view.different(target) > 0.5):
        return None
    why = f"column {stance!r} says how each text stands to what column {target!r} names"
    return Reading("stance", {"text": text, "target": target, "stance": stance}, why)


def _is_repeated(view: View, name: str) -> bool:
    found = [str(value) for value in view.values(name)]
    return 2 <= len(set(found)) <= min(12, max(2, len(found) // 2))


def _says_stance(view: View, name: str) -> bool:
    found = {str(value).strip().casefold() for value in view.values(name)}
    return bool(found & FAVOR) and bool(found & AGAINST) and found <= FAVOR | AGAINST | NO_STANCE


def _entity_rows(view: View) -> Reading | None:
    """A row for each text and entity, with the polarity."""
    entity = view.given.get("entity") or next((n for n in view.names if plain_name(n) in ENTITY_NAMES), None)
    others = [name for name in view.names if name != entity]
    sentiment = view.given.get("sentiment") or next((n for n in others if _is_sentiment(view, n)), None)
    text = view.text(but=[entity, sentiment])
    if not entity or not sentiment or not text or not view.is_all(entity, _is_text):
        return None
    rows = [row for row in view.rows if isinstance(row.get(text), str) and isinstance(row.get(entity), str)]
    inside = sum(row[entity] in row[text] for row in rows)
    again = view.different(text) < 0.95
    if "entity" not in view.given and inside < 0.5 * len(rows) and not again:
        return None
    why = f"column {sentiment!r} says how each text judges what column {entity!r} names"
    fields = {"text": text, "entity": entity, "sentiment": sentiment}
    label = Reading(
        "classification", {"text": text, "label": sentiment}, f"column {sentiment!r} alone, whoever is meant"
    )
    is_clear = again or inside >= 0.9 * len(rows)
    others = ([] if is_clear else [label]) + _joint(view, text, entity, sentiment)
    return Reading("entity_sentiment", fields, why, others=tuple(others))


def _joint(view: View, text: str, entity: str, sentiment: str) -> list[Reading]:
    """All entities of a text in one answer, where the rows of a text follow each other."""
    texts = [row.get(text) for row in view.rows]
    n_runs = sum(one != other for one, other in zip(texts, [None, *texts], strict=False))
    if not len(set(texts)) == n_runs < len(texts) or entity not in ITEM_TEXTS or sentiment not in ITEM_SENTIMENTS:
        return []
    why = f"rows with the same {text!r} follow each other: one answer names all their entities"
    into = next(name for name in ("pairs", "pairs_") if name not in view.names)
    collect = {"by": text, "columns": [entity, sentiment], "into": into}
    return [Reading("entity_sentiment_pairs", {"text": text, "pairs": into}, why, file={"collect": collect})]


def _is_sentiment(view: View, name: str) -> bool:
    named = any(plain_name(name) == one or plain_name(name).endswith(one) for one in SENTIMENT_NAMES)
    values = {str(value).strip().casefold() for value in view.values(name)}
    known = bool(values) and len(values) <= 10 and (values <= SCALE or len(values & POLARITY) >= 0.6 * len(values))
    return known and (named or not values <= SCALE)


def _wide(view: View) -> Reading | None:
    return wide(view, sure=True)


def wide(view: View, *, sure: bool) -> Reading | None:
    """A column for each aspect, all with the same few polarities: the wide table of aspect sentiment. Without `sure`
    these may be any few values that the columns share."""
    cells = {name: _usual(view.values(name, len(view.rows))) for name in view.names}
    aspects = [name for name, found in cells.items() if 0 < len(found) <= 6 and (not sure or _are_polarities(found))]
    aspects = [name for name in aspects if not has_name(name, ANNOTATORS)]  # several opinions on one thing
    if not sure:
        aspects = max(([n for n in aspects if len(cells[n] & cells[one]) >= 2] for one in aspects), key=len, default=[])
    seen = set().union(*(cells[name] for name in aspects)) if aspects else set()
    text = view.text(but=aspects)
    if len(aspects) < 3 or text is None or (sure and not (len(seen & POLARITY) >= 2 or {"-1", "1"} <= seen)):
        return None
    why = f"{len(aspects)} columns hold the same few polarities, one for each aspect: a row for each text and aspect"
    entity, value = (next(n for n in (name, f"{name}_") if n not in view.names) for name in ("aspect", "polarity"))
    melt = {"columns": aspects, "entity": entity, "value": value}
    if drop := _not_mentioned(view, aspects):
        melt["drop"] = drop
    fields = {"text": text, "entity": entity, "sentiment": value}
    return Reading("entity_sentiment", fields, why, file={"melt": melt})


NOT_MENTIONED = {"-2", "none", "nan", "null", "not mentioned", "not_mentioned", "na", "n/a", "-", "未提及", "無", "无"}


def melt_hint(reading: Reading | None) -> str:
    """How to declare a wide table, with the columns of a reading of it."""
    melt = reading.file["melt"] if reading else {"columns": ["A", "B"], "entity": "aspect", "value": "polarity"}
    fields = reading.fields if reading else {"text": "COLUMN", "entity": "aspect", "sentiment": "polarity"}
    data = {"files": {"all": [{"path": "FILE", "melt": {"drop": [""], **melt}}]}, "fields": fields}
    flow = yaml.safe_dump({"data": data}, allow_unicode=True, default_flow_style=True, sort_keys=False, width=10**6)
    return f"the step `melt` makes a row of each cell but those of `drop`; in the file of --answers: {flow.strip()}"


def _usual(values: Sequence[Any]) -> set[str]:
    """The values of a column without the stray ones: a `?` in a hundred cells."""
    counts = Counter(str(value).strip().casefold().removesuffix(".0") for value in values)
    stray = max(1, 0.02 * counts.total()) if counts.total() >= 20 else 0
    return {value for value, n in counts.items() if n > stray}


def _are_polarities(found: set[str]) -> bool:
    return found <= SCALE or (found <= POLARITY | NOT_MENTIONED and bool(found & POLARITY))


def _not_mentioned(view: View, aspects: Sequence[str]) -> list[str]:
    """Cells that stand for an aspect which the text does not speak of, as they are written."""
    raw = {_cell(row.get(name)) for row in view.rows for name in aspects}
    return sorted(text for text in raw if not text or text.casefold().removesuffix(".0") in NOT_MENTIONED)


def _cell(value: Any) -> str:
    """A cell as `melt` compares it: -2.0 of JSON or Excel is -2."""
    whole = isinstance(value, float) and value.is_integer()
    return "" if value is None else str(int(value) if whole else value).strip()


def _instruction(view: View) -> Reading | None:
    """Alpaca form, unless its outputs are the labels of a classification."""
    instruction, output = view.named("instruction"), view.named("output", "response")
    if not instruction or not output or not view.is_all(output, _is_text):
        return None
    fields = {"instruction": instruction, "output": output}
    reading = Reading("generation", fields, "an instruction and its answer in each row (Alpaca form)")
    reading = replace(reading, fields={**fields, **_present(view, "input", "system", "history")})
    values = view.values(output)
    few = len(values) > 1 and len(set(values)) <= max(1, len(values) // 2) and view.length(output) <= 40
    if not few:
        return reading
    text = view.named("input") if view.named("input") and view.different(view.named("input")) > 0.5 else instruction
    why = f"column {output!r} repeats {len(set(values))} short answers"
    return Reading("classification", {"text": text, "label": output}, why, others=(reading,))


def answered(view: View, texts: Sequence[str], *, by_name: bool) -> Reading | None:
    """Two columns of texts of which the second answers or sums up the first. Without `by_name` their lengths decide, or
    the order in which they stand."""
    for first, second, first_names, second_names in ANSWERED:
        source = view.given.get(first) or _called(texts, first_names)
        result = view.given.get(second) or _called([name for name in texts if name != source], second_names)
        longer = first == "prompt" or (source and result and view.length(source) >= 2 * view.length(result))
        if source and result and longer:
            why = f"columns {source!r} and {result!r} are called {first} and {second}"
            return Reading("generation", {first: source, second: result, **_present(view, "system")}, why)
    if by_name or len(texts) != 2:
        return None
    if one_name := _one_is_called(texts):
        return one_name
    long, short = sorted(texts, key=view.length, reverse=True)
    if view.length(long) >= SHORTER * view.length(short):
        times = view.length(long) / max(1, view.length(short))
        why = f"both hold a different text in every row, and column {short!r} is {times:.0f} times shorter"
        summary = Reading("generation", {"document": long, "summary": short}, why)
        return replace(summary, others=(Reading("generation", {"prompt": texts[0], "response": texts[1]}, why),))
    why = "both hold a different text in every row; taken in the order in which they stand"
    return Reading("generation", {"prompt": texts[0], "response": texts[1]}, why)


def _called(texts: Sequence[str], names: AbstractSet[str]) -> str | None:
    """The column that is called by one of `names`; if none is, one whose name ends so: 客戶問題, customer_question,
    and 回覆內容 without 內容."""
    words = {name for name in names if len(name) > 1}

    def ends_so(column: str) -> bool:
        parts = re.findall(r"[a-z]+|[\u3400-\u9fff]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column).lower())
        last = parts[-2:-1] if len(parts) > 1 and parts[-1] in ("text", "content") else parts[-1:]
        last += [re.sub("(內容|内容|文字|文本)$", "", part) for part in last]
        return any(part in words or part.endswith(tuple(w for w in words if not w.isascii())) for part in last)

    exact = next((column for column in texts if plain_name(column) in names), None)
    return exact or next(filter(ends_so, texts), None)


def _one_is_called(texts: Sequence[str]) -> Reading | None:
    """Two columns of which one alone is called prompt or response, whatever their lengths."""
    (_, _, prompts, responses), (_, _, _, summaries) = ANSWERED
    for role, other_role, names, but in (
        ("prompt", "response", prompts, summaries),
        ("response", "prompt", responses, ()),
    ):
        column = _called(texts, names)
        other = next((name for name in texts if name != column), None)
        if column and not _called([other], set(but)):
            why = f"column {column!r} is called {role}, and {other!r} is the only other text"
            fields = {role: column, other_role: other}
            return Reading("generation", {"prompt": fields["prompt"], "response": fields["response"]}, why)
    return None


def _answered_by_name(view: View) -> Reading | None:
    prose = [name for name in view.texts() if view.different(name) > 0.5]
    if _label(view, but=prose):
        return None
    return answered(view, [name for name in view.names if name in prose], by_name=True)


RECOGNISERS: tuple[Callable[[View], Reading | None], ...] = (
    _preference,
    _question,
    _chat,
    _items,
    _tags,
    _objects,
    _label_lists,
    _tagged,
    _stance,
    _entity_rows,
    _wide,
    _instruction,
    _answered_by_name,
)
