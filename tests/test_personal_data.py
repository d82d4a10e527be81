"""Personal data are found in the forms people write them in; ordinary numbers do not alarm."""

from __future__ import annotations

import datetime
import itertools
import json
import re
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import BUNDLE
from tasklib.data.personal_data import (
    Finding,
    findings,
    is_china_resident_id,
    is_credit_card,
    is_iban,
    is_taiwan_id,
    masked,
)

SHARED = BUNDLE.parent / "shared" / "data"
with_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason="shared data sets are not beside the checkout")

# The numbers are those that the rules' own publishers print as examples, test cards, or made up.
FORMS = {
    "email": ["john.doe@example.com", "a_b+c-d@mail.example.com.tw", "Ｊｏｈｎ＠example.com"],
    "phone_tw_mobile": [
        "0912345678", "0912-345-678", "0912-345678", "0912 345 678", "0912.345.678", "09-12345678", "09-1234-5678",
        "(0912)345678", "(0912) 345-678", "+886912345678", "+886 912 345 678", "+886-912-345-678", "886912345678",
        "+886-9-1234-5678", "+886(0)912345678", "０９１２３４５６７８", "０９１２－３４５－６７８", "0912‐345‐678",
    ],
    "phone_tw_landline": [
        "(02)2345-6789", "(02) 2345-6789", "02-2345-6789", "02-23456789", "02 2345 6789", "04-22345678", "04-7234567",
        "03-3456789", "037-345678", "049-2345678", "089-345678", "082-345678", "0826-23456", "0836-22345",
        "+886-2-2345-6789", "+886 2 2345 6789", "（０２）２３４５－６７８９",
    ],
    "phone_cn_mobile": [
        "13812345678", "138 1234 5678", "138-1234-5678", "+8613812345678", "+86 138 1234 5678", "86-19912345678",
        "0086 13812345678", "１３８１２３４５６７８",
    ],
    "phone_international": [
        "+1 212 555 0123", "+1 (212) 555-0123", "+1-212-555-0123", "+12125550123", "+44 20 7946 0958",
        "+44.20.7946.0958", "+91-80-5555-0123", "+852 2345 6789", "+81 3-1234-5678", "+49 30 123456",
        "+86 10 6552 9988",
    ],
    "taiwan_id": ["A123456789", "A223456781", "A800000014", "A900000016", "AB23456789", "Ａ１２３４５６７８９"],
    "china_resident_id": ["11010519491231002X", "11010519491231002x", "１１０１０５１９４９１２３１００２Ｘ"],
    "credit_card": [
        "4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "5555555555554444", "2223003122003222",
        "378282246310005", "3782 822463 10005", "6011111111111117", "3530111333300000", "30569309025904",
        "6200000000000005", "6205 5000 0000 0000 004", "4222222222222",
    ],
    "iban": [
        "GB82 WEST 1234 5698 7654 32", "GB82WEST12345698765432", "DE89370400440532013000", "BE71 0961 2345 6769",
        "FR1420041010050500013M02606", "MT84MALT011000012345MTLCAST001S", "NO93 8601 1117 947",
    ],
}  # fmt: skip
KINDS_AND_FORMS = [(kind, form) for kind, forms in FORMS.items() for form in forms]


def kinds(text: str) -> list[str]:
    return [finding.kind for finding in findings(text)]


@pytest.mark.parametrize(("kind", "form"), KINDS_AND_FORMS)
@pytest.mark.parametrize(
    "around", ["{}", "請洽 {} 王小姐", "聯絡方式：{}，謝謝", "（{}）", "Call {}.", "{}張小姐", "{}、{}", "{}\n{}"]
)
def test_each_kind_is_found_in_each_form_with_its_exact_place(kind, form, around):
    text = around.replace("{}", form)
    places = [match.start() for match in re.finditer(re.escape(form), text)]
    assert findings(text) == [Finding(kind, start, start + len(form)) for start in places]


@pytest.mark.parametrize(("kind", "form"), KINDS_AND_FORMS)
def test_no_finding_and_no_masked_text_shows_the_value(kind, form):
    text = f"王先生 {form}，李小姐 {form}"
    found = findings(text)
    assert masked(text, found) == f"王先生 [{kind}]，李小姐 [{kind}]"
    assert form not in repr(found)


@pytest.mark.parametrize(
    "text",
    [
        "電話：0223456789",
        "电话 0223456789",
        "Tel:0223456789",
        "TEL. 0223456789",
        "傳真 0223456789",
        "phone: 0223456789",
    ],
)
def test_a_landline_number_without_separators_counts_behind_a_word_for_phone(text):
    assert kinds(text) == ["phone_tw_landline"]
    assert kinds("0223456789") == []


NEGATIVES = [
    # prices, amounts and figures
    "台積電（2330）10月營收1,234,567,890元", "1234567890元", "營收 13812345678 元，年增 15.3%", "13800000000",
    "EPS 3.21",
    "0.0912345678", "3.141592653589793", "1,3812345678", "+12,345,678", "+12345678", "+12 345 678", "+15000000000",
    "5,000,000,000", "USD 12345678.90", "13812345678 shares", "19912345678股", "NT$0", "0050、00878、006208",
    "512.34  509.87   +0.48  -2.25", "731.15 731.92 -0.11% +1.23 4567.89 1234.56", "1000000000000", "2147483648",
    # dates and times
    "20261122", "2026/11/22 14:30:00", "2026-11-22 14:30:00", "2026.11.22", "20261122143000", "1700000000",
    "1700000000000", "2006-2007", "1979--2006", "1971—1976", "民國115年11月22日", "02-11-2026",
    # numbers of things
    "ISBN 9789571234567", "ISBN 978-957-123-456-7", "ISBN 0912345678", "ISSN 1234-5678", "統一編號 12345678",
    "統編：12345678", "訂單編號 0912345678", "订单号：4111111111111111", "單號 0912345678", "发票号码 12345678",
    "發票 AB12345678", "發票號碼：AB23456789", "條碼 4711234567890", "4006381333931", "order #0912345678",
    "Invoice No. 0912345678", "Tracking: 4111111111111111", "GB/T 12345-1998", "CAS 7732-18-5",
    "doi:10.1259/0912345678",
    "192.168.100.200", "第0223456789號", "012-345678", "01-23456789", "02-12345678", "04-123", "0800-123",
    # codes
    "[nL4N2Z028U]", "<JNJ.N>", "<KY123456789=RRPS>", "ID0912345678", "x0912345678", "0912345678ab",
    "a1b2c3d4e5f60912345678",
    "sha 4111111111111111f", "SKU-A123456780", "https://news.example.com/2026/11/0912345678?id=A123456789",
    "https://wa.example.com/+12125550123", "ftp://x:y@example.com", "0912345678.5", "2026-0912345678", "09123456789",
    "091234567", "138123456789", "12812345678", "15412345678",
    # wrong check digits, dates and lengths
    "A123456780", "A323456789", "AE23456789", "110105194912310021", "110105194902310029", "110105209912310026",
    "4111111111111112", "1234567890123452", "9999999999999995", "GB82 WEST 1234 5698 7654 33", "GB82WEST1234569876543",
    "ZZ82WEST12345698765432", "GB82",
    # at signs
    "@name", "user@host", "foo@", "a@b.c", "v1@2.3", "icon@2x.png", "3@5.00", "@向前進軍：//@頭條新聞", "checkout@v3",
    "“@”", "a@.com", "@@@@",
]  # fmt: skip


@pytest.mark.parametrize("text", NEGATIVES)
@pytest.mark.parametrize("around", ["{}", "公告：{}。", "（{}）"])
def test_an_ordinary_number_or_sign_does_not_alarm(text, around):
    assert findings(around.replace("{}", text)) == []


def test_a_text_without_digit_or_at_sign_has_nothing():
    assert findings("央行升息半碼，股市反應平淡。") == [] == findings("")


def test_of_two_kinds_that_fit_the_one_with_check_digits_counts():
    numbers = [f"62010519900101{n:04d}" for n in range(10**4)]
    both = next(number for number in numbers if is_credit_card(number) and is_china_resident_id(number))
    assert kinds(both) == ["china_resident_id"]


def test_several_kinds_in_one_text_come_in_its_order_and_do_not_overlap():
    text = "id A123456789, card 4111 1111 1111 1111, mail a@example.com, tel 0912-345-678/02-2345-6789, +1 212 555 0123"
    found = findings(text)
    assert [one.kind for one in found] == [
        "taiwan_id", "credit_card", "email", "phone_tw_mobile", "phone_tw_landline", "phone_international",
    ]  # fmt: skip
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))
    assert not re.search(r"\d{3}", masked(text, found))


def test_an_account_number_ends_where_its_country_says():
    text = "BE71 0961 2345 6769 EUR 500"
    assert findings(text) == [Finding("iban", 0, 19)]


# Check digits.


@given(st.sampled_from(string.ascii_uppercase), st.sampled_from("1289ABCD"), st.integers(0, 10**7 - 1))
def test_exactly_one_of_ten_check_digits_of_a_taiwanese_number_is_right(letter, second, rest):
    right = [digit for digit in range(10) if is_taiwan_id(f"{letter}{second}{rest:07d}{digit}")]
    assert len(right) == 1
    assert kinds(f"{letter}{second}{rest:07d}{right[0]}") == ["taiwan_id"]
    assert kinds(f"{letter}{second}{rest:07d}{(right[0] + 1) % 10}") == []


@given(
    st.dates(datetime.date(1900, 1, 1), datetime.date(2020, 12, 31)),
    st.sampled_from(["110105", "440524", "810000", "650101"]),
    st.integers(0, 999),
)
def test_exactly_one_of_eleven_check_characters_of_a_chinese_number_is_right(born, region, serial):
    stem = f"{region}{born:%Y%m%d}{serial:03d}"
    right = [char for char in "0123456789X" if is_china_resident_id(stem + char)]
    assert len(right) == 1
    assert kinds(stem + right[0]) == ["china_resident_id"]
    wrong = stem[:-1] + str((int(stem[-1]) + 1) % 10) + right[0]
    assert not is_china_resident_id(wrong), "MOD 11-2 finds every single wrong digit"


def test_a_chinese_number_needs_a_province_and_a_real_date_of_birth_in_the_past():
    assert is_china_resident_id("11010519491231002X")
    tomorrow = datetime.date.today() + datetime.timedelta(days=1)
    for stem in ("99010519491231002", "11010519490230002", "11010518991231002", f"110105{tomorrow:%Y%m%d}002"):
        assert not any(is_china_resident_id(stem + char) for char in "0123456789X"), stem


@given(st.integers(0, 10**14 - 1))
def test_exactly_one_of_ten_last_digits_of_a_card_number_is_right_and_a_swap_is_found(rest):
    stem = f"4{rest:014d}"
    (right,) = [str(digit) for digit in range(10) if is_credit_card(f"{stem}{digit}")]
    first, second = stem[7], stem[8]
    if {first, second} != {"0", "9"} and first != second:  # what Luhn's formula cannot tell apart
        assert not is_credit_card(stem[:7] + second + first + stem[9:] + right)


def test_a_bar_code_is_no_card_number():
    codes = [f"471{n:09d}" for n in range(0, 10**7, 9973)]
    check = [(10 - sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(code)) % 10) % 10 for code in codes]
    assert not any(is_credit_card(f"{code}{digit}") for code, digit in zip(codes, check, strict=True))


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=18, max_size=18))
def test_exactly_one_pair_of_check_digits_of_an_account_number_is_right(account):
    right = [f"GB{check:02d}{account}" for check in range(2, 99) if is_iban(f"GB{check:02d}{account}")]
    assert len(right) == 1
    assert not is_iban(right[0] + "0") and not is_iban(right[0][:-1])


# Any text.

noisy = st.text(st.sampled_from("0123456789０９１+-() ./@:a.AGBX\u3000，元"), max_size=60) | st.text(max_size=60)


@settings(max_examples=1000)
@given(noisy)
def test_any_text_gives_places_inside_it_in_order_and_masking_leaves_the_rest(text):
    found = findings(text)
    ends = [0, *(place for one in found for place in (one.start, one.end)), len(text)]
    assert ends == sorted(ends)
    rest = "".join(text[a:b] for a, b in zip(ends[::2], ends[1::2], strict=True))
    assert re.sub(r"\[[a-z_]+\]", "", masked(text, found)) == re.sub(r"\[[a-z_]+\]", "", rest)


@settings(max_examples=300)
@given(st.lists(st.integers(0, 9_999_999), max_size=8))
def test_short_numbers_with_words_between_them_never_alarm(numbers):
    assert findings("，".join(f"第{number}項" for number in numbers)) == []


@pytest.mark.parametrize(
    "text",
    [
        "1" * 200_000, "1 " * 100_000, "a" * 200_000 + "@", "a@" + "b." * 100_000, "a@" * 100_000,
        "+1" + " 1" * 100_000, "(0)" * 60_000, "GB82" + "A" * 200_000,
        "GB82 " * 40_000, "1-" * 100_000, "+886" * 50_000, "4111 " * 40_000,
    ],
    ids=lambda text: text[:6],
)  # fmt: skip
def test_no_long_text_makes_the_search_hang(text):
    started = time.perf_counter()
    findings(text)
    assert time.perf_counter() - started < 20


# Published data sets.


def published_count(folder: str, what: str) -> int:
    """How many texts of a data set have something, as its META.md says."""
    text = (SHARED / folder / "META.md").read_text(encoding="utf-8")
    return int(re.search(rf"{re.escape(what)}: (\d+)", text).group(1))


@with_shared_data
def test_addresses_of_reporters_are_found_as_often_as_published():
    rows = json.loads((SHARED / "en_finentity" / "FinEntity.json").read_text(encoding="utf-8"))
    found = [kinds(row["content"]) for row in rows]
    assert sum("email" in row for row in found) == published_count("en_finentity", "with e-mail")
    assert {kind for row in found for kind in row} == {"email", "phone_international"}


@with_shared_data
@pytest.mark.parametrize(
    ("folder", "name"),
    [("zh_thucnews_title_topic", "dev.txt"), ("zh_csl_title_generation", "dev.tsv"), ("zhtw_drcd_qa", "DRCD_dev.json")],
)
def test_headlines_abstracts_and_articles_full_of_numbers_do_not_alarm(folder, name):
    lines = re.split(r'[\n\t"]', (SHARED / folder / name).read_text(encoding="utf-8"))
    assert sum(bool(re.search(r"\d{4}", line)) for line in lines) > 100
    assert [line for line in lines if findings(line)] == []
