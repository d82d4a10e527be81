"""What each column of the raw rows is like: one pass over all rows that keeps counts and a few rows, never all."""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from creation.sources import Source
from tasklib.reading.records import Row
from tasklib.reading.times import posix_seconds
from tasklib.summary import Findings, Problem

MAX_DIFFERENT = 2000  # values counted of one column; a column with more is no label
SPREAD_ROWS = 2000  # rows kept, at least, evenly over all files: a file sorted by label begins with one label only
LOOKED_AT = 200  # values that say what kind of column it is
FEW_VALUES = 50  # that many values may be labels in any table; more only where each stands ten times on average
FEW_ROWS = 20  # in a table of so few, a value that comes again at all may be a label
FEW_NUMBERS = 20  # more different numbers are a measurement
LABEL_LENGTH = 40  # characters on average, at most

# Names that people give to the column of the texts and of the labels, and names of what is neither. In English one
# word of the name must be among them (review_text), in Chinese its end (新聞標題).
TEXT_NAMES = {
    "text", "texts", "content", "contents", "sentence", "title", "review", "reviewbody", "comment", "body",
    "headline", "message", "query", "question", "utterance", "description", "article", "abstract", "post", "tweet",
    "document", "feedback", "input", "subject", "summary",
    "文字", "文本", "內容", "内容", "內文", "内文", "本文", "正文", "全文", "原文", "標題", "标题", "句子", "評論",
    "评论", "留言", "新聞", "新闻", "訊息", "信息", "文章", "貼文", "發文", "意見", "意见", "回饋", "描述", "說明",
    "说明", "摘要", "主旨", "案情", "問題", "问题", "提問", "对话", "對話",
}  # fmt: skip
LABEL_NAMES = {"label", "labels", "gold", "標籤", "标签", "標註", "标注", "標記", "标记"}
MAYBE_LABEL_NAMES = {
    "class", "category", "categories", "sentiment", "target", "tag", "topic", "intent", "mood", "polarity", "emotion",
    "stance",
    "類別", "类别", "分類", "分类", "情感", "情緒", "情绪", "主題", "主题", "意圖", "意图", "立場", "立场", "極性",
    "极性",
}  # fmt: skip
OTHER_NAMES = {
    "id", "ids", "uid", "uuid", "index", "idx", "no", "date", "time", "datetime", "timestamp", "year", "month", "day",
    "url", "link", "source", "author", "user", "username", "name", "gender", "age", "city", "country", "region",
    "address", "phone", "email", "platform", "channel", "media", "publisher", "page", "split", "subset", "fold",
    "lang", "language", "length", "count", "likes", "views", "price", "amount", "annotator", "status", "note",
    "notes",
    "編號", "编号", "序號", "序号", "日期", "時間", "时间", "時間戳記", "年", "年度", "年份", "月", "月份", "星期",
    "網址", "網站", "連結", "链接", "來源", "来源", "出處", "媒體", "媒体", "報社", "作者", "記者", "姓名", "使用者",
    "用戶", "帳號", "性別", "性别", "年齡", "年龄", "縣市", "城市", "地區", "地区", "地址", "電話", "信箱", "平台",
    "管道", "渠道", "頻道", "版面", "頁碼", "語言", "數", "数", "數量", "金額", "價格", "長度", "標註者", "標註人",
    "人員", "狀態", "状态", "備註", "备注",
}  # fmt: skip

KNOWN_NAMES = TEXT_NAMES | LABEL_NAMES | MAYBE_LABEL_NAMES | OTHER_NAMES

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
# Beyond what times.posix_seconds reads: months, and the time stamps of forms (2026/1/5 上午 9:23:11).
_DATE = re.compile(
    r"(民國)?\d{2,4}[-/.年]\s*\d{1,2}\s*(月|[-/.月]\s*\d{1,2}\s*日?)?"
    r"([T\s(（)）:.+Z\d-]|[上下]午|[AaPp]\.?[Mm]\b|[週周星期][一二三四五六日])*"
)
_CODE = re.compile(r"(?=.*[\d@/])[!-~]+")  # A-0012, an address, a link: no space, and a digit, @ or /
_HAN_OR_KANA = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_WORD = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


def is_number(value: str) -> bool:
    return _NUMBER.fullmatch(value.strip()) is not None


def is_date(value: str) -> bool:
    value = value.strip()
    return not (is_number(value) and len(value) != 8) and (
        posix_seconds(value) is not None or _DATE.fullmatch(value) is not None
    )


def weight(text: str) -> float:
    """How much is said: Chinese characters, and two for each word of other writings."""
    return len(_HAN_OR_KANA.findall(text)) + 2 * len(_WORD.findall(text))


def plain_name(column: str) -> str:
    """The name without case, width and what separates words: `Review_Text` becomes `reviewtext`."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", column).lower())


def has_name(column: str, names: AbstractSet[str]) -> bool:
    """Whether a column is called by one of `names`: as a whole, by one English word or by the end of a Chinese one."""
    if plain_name(column) in names:
        return True
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", column)).lower()
    for part in re.findall(r"[a-z]+|[\u3400-\u9fff]+", words):
        ending = re.sub("(代碼|代号|名稱|名称|欄位|欄)$", "", part)
        if part in names or any(ending.endswith(name) for name in names if not name.isascii()):
            return True
    return False


@dataclass
class Column:
    """What all rows say about one column. `counts` maps a value to its rows and is complete for up to MAX_DIFFERENT
    values; `types` are those of JSON and Parquet; `places` are positions in the list of sources that have it."""

    name: str
    n_filled: int = 0
    n_counted: int = 0  # filled rows until `counts` was full
    n_characters: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    types: set[str] = field(default_factory=set)
    places: set[int] = field(default_factory=set)

    def add(self, value: Any) -> None:
        if type(value) is str:
            self.types.add("text")
        elif value is None:
            return
        else:
            kind, value = _plain(value)
            self.types.add(kind)
        if not value or value.isspace():
            return
        self.n_filled += 1
        if len(self.counts) < MAX_DIFFERENT or value in self.counts:
            self.counts[value] = self.counts.get(value, 0) + 1
            if len(self.counts) < MAX_DIFFERENT:
                self.n_counted += 1
                self.n_characters += len(value)

    @property
    def n_different(self) -> int:
        """Exact below MAX_DIFFERENT; there it stands for that many or more."""
        return len(self.counts)

    @property
    def mean_length(self) -> float:
        return self.n_characters / max(1, self.n_counted)

    @functools.cached_property
    def _some(self) -> list[str]:
        return list(self.counts)[:LOOKED_AT]

    @functools.cached_property
    def is_number(self) -> bool:
        return bool(self._some) and all(map(is_number, self._some))

    @functools.cached_property
    def is_date(self) -> bool:
        return bool(self._some) and sum(map(is_date, self._some)) >= 0.95 * len(self._some)

    @functools.cached_property
    def is_code(self) -> bool:
        """An identifier, an address or a link in nearly every row."""
        codes = sum(_CODE.fullmatch(value) is not None for value in self._some)
        return bool(self._some) and codes >= 0.95 * len(self._some)

    @functools.cached_property
    def is_prose(self) -> bool:
        """Phrases of eight Chinese characters or four words, on average."""
        return sum(map(weight, self._some)) >= 8 * max(1, len(self._some))

    @functools.cached_property
    def is_varied(self) -> bool:
        """Hardly a value twice: what a text looks like. Phrases may come again, as what people say to a shop does."""
        if "text" not in self.types or self.is_number or self.is_date or self.is_code:
            return False
        share = self.n_different / max(1, self.n_counted)
        return share > 0.5 or (self.is_prose and share > 0.1 and self.n_different > FEW_VALUES)

    @functools.cached_property
    def is_repeated(self) -> bool:
        """Few values, each seen several times on average: what a label looks like."""
        half = self.n_filled // 2 if self.n_filled > FEW_ROWS else self.n_filled - 1
        most = min(half, max(FEW_VALUES, self.n_filled // 10), MAX_DIFFERENT - 1)
        few = 2 <= self.n_different <= (min(most, FEW_NUMBERS) if self.is_number else most)
        return few and self.mean_length <= LABEL_LENGTH and not self.is_date and not self.types & {"list", "object"}

    def few(self, n: int = 6) -> str:
        """Some values, for a message."""
        shown = [value if len(value) <= 30 else value[:29] + "…" for value in sorted(self.counts)[:n]]
        return ", ".join(shown) + (", …" if self.n_different > n else "")


def _plain(value: Any) -> tuple[str, str]:
    """(type, text) of a value of JSON or Parquet that is no text."""
    if isinstance(value, bool):
        return "boolean", str(value).lower()
    if isinstance(value, int):
        return "number", str(value)
    if isinstance(value, float):
        return "fraction", "" if value != value else str(value)
    return "list" if isinstance(value, list) else "object", json.dumps(value, ensure_ascii=False, default=str)


@dataclass
class Table:
    """All sources seen together: columns in their first order, rows spread evenly, and what could not be read.

    `problems` are of files that hold no readable row, or whose parallel file has another length."""

    columns: dict[str, Column] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    n_rows: int = 0
    faults: Findings = field(default_factory=Findings)
    problems: list[Problem] = field(default_factory=list)


def read(sources: Sequence[Source]) -> Table:
    """Reads every row of every source once."""
    table, step = Table(), 1
    for place, source in enumerate(sources):
        n_before, faults = table.n_rows, Findings()
        for item in source.rows():
            if type(item) is Row:
                if _is_header(item.values):
                    faults.warning(_repeated_header(item))
                    continue
                _add(table.columns, item.values, place)
                if table.n_rows % step == 0:
                    table.rows.append(item.values)
                    if len(table.rows) >= 2 * SPREAD_ROWS:
                        table.rows, step = table.rows[::2], step * 2
                table.n_rows += 1
            elif isinstance(item, Problem):
                faults.warning(item)
            else:
                faults.warning(item.problem)
        shifted = [problem for problem in faults.warnings if problem.code == "parallel_length"]
        if table.n_rows == n_before or shifted:
            table.problems += shifted or faults.warnings
        else:
            table.faults.extend(faults)
    return table


def _is_header(values: dict[str, Any]) -> bool:
    """The column names once more, as where exports were put together."""
    name = next(iter(values), None)
    return name is not None and values[name] == name and len(values) > 1 and all(v == n for n, v in values.items())


def _repeated_header(row: Row) -> Problem:
    message, hint = "the line repeats the names of the columns", "remove it: validation takes it for a row"
    return Problem(code="repeated_header", message=message, file=row.file, line=row.line, hint=hint)


def _add(columns: dict[str, Column], values: dict[str, Any], place: int) -> None:
    for name, value in values.items():
        column = columns.get(name)
        if column is None:
            column = columns[name] = Column(name)
        column.add(value)
        if place not in column.places:
            column.places.add(place)


def one_to_one(rows: Iterable[dict[str, Any]], first: str, second: str) -> bool:
    """Whether two columns say the same in other words: 0 always stands beside `negative`, and nothing else does."""
    pairs = [(row.get(first), row.get(second)) for row in rows]
    pairs = [(str(a), str(b)) for a, b in pairs if a not in (None, "") and b not in (None, "")]
    if len(pairs) < 20:
        return False
    different = set(pairs)
    return len(different) == len({a for a, _ in different}) == len({b for _, b in different}) >= 2
