"""Dates as people in Taiwan and elsewhere write them in a table."""

from __future__ import annotations

import datetime
import re
import unicodedata

ROC_EPOCH = 1911  # 民國 1 is 1912
MAX_CHARACTERS = 80  # a longer text is no date
_HALF = r"上午|下午|[ap]\.?m\.?"
# 2026/11/22, 115.11.22, 民國115年11月22日; behind it 15:30, 下午 3:30:00, 03:30 PM, 15時30分, or 3:30:00 下午 GMT+8
# as Google Forms writes it.
_DATE = re.compile(
    r"(?:中華民國|民國)?\s*(?P<year>\d{2,4})\s*[-/.年]\s*(?P<month>\d{1,2})\s*[-/.月]\s*(?P<day>\d{1,2})\s*日?"
    rf"(?:(?:T|\s|(?<=日))\s*(?P<before>{_HALF})?\s*(?P<hour>\d{{1,2}})\s*[:時]\s*(?P<minute>\d{{1,2}})\s*分?"
    rf"(?:\s*:?\s*(?P<second>\d{{1,2}})(?:\.\d*)?\s*秒?)?\s*(?P<behind>{_HALF})?"
    r"\s*(?P<zone>Z|(?:GMT|UTC)?(?P<ahead>[-+]\d{1,2})?:?(?P<ahead_minutes>\d{2})?))?",
    re.IGNORECASE,
)
_COMPACT = re.compile(r"(?P<year>\d{3})(?P<month>\d{2})(?P<day>\d{2})")  # 1151122; 20261122 is ISO


def posix_seconds(value: object) -> float | None:
    """A date or time as POSIX seconds, or None where `value` is none. Times without a zone count as UTC: only their
    order matters. A year below 1000 is one of the Republic of China (115/11/22); the day comes last."""
    if isinstance(value, bool) or value is None:
        return None
    text = str(value)
    if len(text) > MAX_CHARACTERS:
        return None
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.year < 1000:
        moment = _other_forms(text)
    return moment and (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _other_forms(text: str) -> datetime.datetime | None:
    match = _DATE.fullmatch(text) or _COMPACT.fullmatch(text)
    if not match:
        return None
    parts = match.groupdict()
    year, month, day = (int(parts[name]) for name in ("year", "month", "day"))
    year += ROC_EPOCH if year < 1000 else 0
    hour, minute, second = (int(parts.get(name) or 0) for name in ("hour", "minute", "second"))
    if (half := parts.get("before") or parts.get("behind")) and hour <= 12:
        hour = hour % 12 + (12 if half[0] in "下pP" else 0)
    ahead = parts.get("ahead") or "+0"
    minutes = int(ahead) * 60 + int(ahead[0] + (parts.get("ahead_minutes") or "0"))
    try:
        zone = datetime.timezone(datetime.timedelta(minutes=minutes))
        return datetime.datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None
