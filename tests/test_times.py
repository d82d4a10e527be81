"""Dates are understood as people in Taiwan write them, and nothing else is taken for one."""

from __future__ import annotations

import datetime
import time

import pytest

from tasklib.reading.times import posix_seconds

SAME_DAY = [
    "2026-11-22", "20261122", "2026/11/22", "2026/11/22 ", "2026.11.22", "2026-11-22T00:00:00Z", "2026年11月22日",
    "2026 年 11 月 22 日", "２０２６／１１／２２", "115/11/22", "115-11-22", "115.11.22", "1151122", "0115/11/22",
    "民國115年11月22日", "中華民國 115 年 11 月 22 日", 20261122, datetime.date(2026, 11, 22),
    datetime.datetime(2026, 11, 22), "2026/11/22 上午 12:00:00", "2026/11/22 12:00 AM",
]  # fmt: skip
SAME_MOMENT = [
    "2026-11-22T15:30:00", "2026-11-22 15:30", "2026/11/22 15:30", "2026/11/22 下午 03:30:00", "2026/11/22 下午 3:30",
    "2026/11/22 3:30:00 下午", "2026/11/22 03:30 PM", "2026/11/22 3:30 p.m.", "2026年11月22日15:30",
    "115年11月22日 下午3時30分", "民國115年11月22日 15時30分00秒", "2026-11-22T15:30:00+00:00",
    "2026-11-22T23:30:00+08:00", "2026/11/22 23:30 +08:00", "2026/11/22 11:30:00 下午 GMT+8",
    "2026/11/22 12:00:00 -0330", "2026-11-22T23:30:00.000000000+08:00",
]  # fmt: skip


def seconds(*moment: int) -> float:
    return datetime.datetime(*moment, tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize("value", SAME_DAY, ids=str)
def test_a_day_is_read_in_every_usual_notation(value):
    assert posix_seconds(value) == seconds(2026, 11, 22)


@pytest.mark.parametrize("value", SAME_MOMENT)
def test_a_time_is_read_with_morning_and_afternoon_and_zone(value):
    assert posix_seconds(value) == seconds(2026, 11, 22, 15, 30)


@pytest.mark.parametrize(
    ("value", "hour"),
    [("上午 12:05", 0), ("上午 11:05", 11), ("下午 12:05", 12), ("下午 1:05", 13), ("下午 13:05", 13)],
)
def test_noon_and_midnight_are_told_apart(value, hour):
    assert posix_seconds(f"2026/11/22 {value}") == seconds(2026, 11, 22, hour, 5)


def test_leap_days_are_those_of_the_western_year():
    assert posix_seconds("113/2/29") == posix_seconds("0113-02-29") == seconds(2024, 2, 29)
    assert posix_seconds("116/2/29") is None  # 2027
    assert posix_seconds("民國01年1月1日") == seconds(1912, 1, 1)


NO_DATES = [
    None, True, False, "", " ", "好", "2026", 2026, 1763769600, "1763769600", 115.0, "11/22/2026", "22/11/2026",
    "2026/13/1", "2026/11/31", "2026/2/29", "2026/11/22 25:00", "2026/11/22 下午", "2026/11/22 下午 x", "下午 3:30",
    "2026/11/22 about noon", "2026/11/22 8:00 +99", "2026/11/2215:30", "1/2", "3.14.15", [], {},
    "2026-11-22" * 20, "0912345678", "12345678",
]  # fmt: skip


@pytest.mark.parametrize("value", NO_DATES, ids=repr)
def test_what_is_no_date_is_none(value):
    assert posix_seconds(value) is None


@pytest.mark.parametrize(
    "value", ["2026/1/1 1:1" + " " * 100_000 + "x", "1" * 100_000, "2026" + " /" * 50_000, "下午" * 50_000]
)
def test_a_long_text_is_no_date_at_once(value):
    started = time.perf_counter()
    assert posix_seconds(value) is None
    assert time.perf_counter() - started < 0.1
