"""Finds personal data in a text: e-mail addresses, phone numbers, identity, card and account numbers.

Numbers with check digits are counted only when these are right, and phone numbers only in the forms in which people
write them, so that prices, dates, stock codes and order numbers do not alarm. A text without a digit run of eight
and without "@" costs a few quick searches. Full-width forms count. No finding carries the value that was found.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "email",
    "phone_tw_mobile",
    "phone_tw_landline",
    "phone_cn_mobile",
    "phone_international",
    "taiwan_id",
    "china_resident_id",
    "credit_card",
    "iban",
]


@dataclass(frozen=True)
class Finding:
    """Where personal data of one kind stand: text[start:end]."""

    kind: Kind
    start: int
    end: int


# The gates: "@"; eight digits, at most two separators between two of them; the start of an account number.
_DIGITS = re.compile(r"[0-9０-９](?:[ ().\-‐-―－（）\u00a0\u3000]{0,2}[0-9０-９]){7}")
_IBAN_START = re.compile(r"[A-ZＡ-Ｚ]{2}[0-9０-９]{2}[ \u3000]?[0-9A-Z０-９Ａ-Ｚ]{4}")

# One character for one, so that positions stay.
_WIDE = re.compile("[\u00a0\u2010-\u2015\u3000\uff01-\uff5e]")
_NARROW = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}
_NARROW |= {0xA0: " ", 0x3000: " ", **dict.fromkeys(range(0x2010, 0x2016), "-")}
_ADDRESS = re.compile(r"(?:[a-z]{3,5}://|(?i:doi)[: ])[!-~]+")  # its digits name a page, not a person

# A number that is a part of a longer one, of a decimal, a date, a time or a code is no number of its own.
_LEFT = r"(?<![0-9A-Za-z_])(?<![0-9][-.:])"
_RIGHT = r"(?![0-9A-Za-z_])(?![-.:][0-9])(?!,[0-9]{3}(?![0-9]))"


def _number(pattern: str) -> re.Pattern[str]:
    return re.compile(f"{_LEFT}(?:{pattern}){_RIGHT}", re.ASCII)


_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}"
    r"@(?:[A-Za-z0-9-]{1,63}\.){1,8}([A-Za-z]{2,24})(?![A-Za-z0-9-])"
)
_FILE_ENDINGS = ("png", "jpg", "jpeg", "gif", "webp", "svg", "css", "js")  # icon@2x.png

# Taiwan, numbering plan of the National Communications Commission: mobile numbers are 09 and eight digits.
_TW_MOBILE = _number(
    r"(?:\+?886[- ]?(?:\(0\)|0)?9|09)(?:\d{8}|\d{2}[-. ]\d{6}|\d{2}[-. ]?\d{3}[-. ]\d{3}|-\d{4}-?\d{4})"
    r"|\(09\d{2}\) ?\d{3}[- ]?\d{3}"
)
# Area code -> how many digits follow; they never begin with 0 or 1. Without any separator such a number is an ordinary
# one, so then a word for phone must stand before it.
_TW_AREAS = {
    "2": (8,), "3": (7,), "37": (6,), "4": (7, 8), "49": (7,), "5": (7,), "6": (7,), "7": (7,), "8": (7,),
    "82": (6,), "826": (5,), "836": (5,), "89": (6,),
}  # fmt: skip
_TW_AREA = f"(?:{'|'.join(sorted(_TW_AREAS, key=len, reverse=True))})"
_TW_LANDLINE = _number(
    rf"(?:\(0{_TW_AREA}\) ?|0{_TW_AREA}[- ]|\+?886[- ]?(?:\(0\))?0?{_TW_AREA}[- ])[2-9]\d{{2,3}}(?:[- ]?\d{{2,4}})"
    rf"|0{_TW_AREA}[2-9]\d{{4,7}}"
)
_PHONE_WORD = re.compile(r"(?:[電电][話话]|[專专][線线]|[傳传]真|(?i:tel|fax|phone))[^0-9A-Za-z\n]{0,4}$")
# Mainland China, numbering plan of the MIIT: eleven digits, the first three a range given to mobile carriers.
_CN_MOBILE = _number(
    r"(?:(?:\+|00)?86[- ]?)?1(?:3\d|4[014-9]|5[0-35-9]|6[2567]|7[0-8]|8\d|9[0-35-9])"
    r"(?:\d{8}|([- ])\d{4}\1\d{4})"
)
# ITU-T E.164: "+", an assigned country code, at most 15 digits in all.
_COUNTRY = (
    r"(?:1|7|20|27|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|21[1-368]|2[2-6]\d|29[01789]|3[578]\d|42[013]"
    r"|5[09]\d|6[789]\d|85[02356]|88[0126]|96\d|97[0-79]|99[2-68])"
)
_INTERNATIONAL = _number(
    rf"\+{_COUNTRY}(?:(?:[- ]?\(\d{{1,4}}\) ?)?\d{{0,12}}(?:[- ]\d{{1,12}}){{0,6}}|(?:\.\d{{2,5}}){{2,5}})"
)

_TAIWAN_ID = _number(r"[A-Z][1289A-D]\d{8}")
_CHINA_ID = _number(r"[1-8]\d{5}(?:19|20)\d{9}[\dXx]")
_CARD = _number(r"\d{13,19}|\d{4}([- ])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|3\d{3}([- ])\d{6}\2\d{4,5}")
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?")

# What a phone or card number is instead when this stands before or behind it.
_OTHER_NUMBER = re.compile(
    r"(?:ISBN|ISSN|[訂定订][單单]|[單单][號号]|[編编][號号]|序[號号]|[貨货][號号]|[發发]票|[統统][編编]|代[碼码]|[條条][碼码]"
    r"|(?i:order|invoice|tracking|item|patent)|No\.|#)[^0-9A-Za-z\n]{0,4}$"
)
_INVOICE_WORD = re.compile("[發发]票|(?i:invoice)")
_UNIT = re.compile(r" ?(?:[元圓圆円股噸吨億亿%$€]|美元|日圓|日元|(?:USD|TWD|NTD|CNY|RMB|shares)\b)")


def findings(text: str) -> list[Finding]:
    """The personal data in `text`, in order and without overlaps; of two kinds that fit, the stricter one counts."""
    rules = [_EMAIL_RULE] if "@" in text or "＠" in text else []
    if _DIGITS.search(text) or _IBAN_START.search(text):
        rules += _NUMBER_RULES
    if not rules:
        return []
    plain = text.translate(_NARROW) if _WIDE.search(text) else text
    plain = _ADDRESS.sub(lambda match: " " * len(match.group()), plain)
    found: list[Finding] = []
    for kind, pattern, end_of in rules:
        for match in pattern.finditer(plain):
            start, end = match.start(), end_of(match)
            if end and not any(one.start < end and start < one.end for one in found):
                found.append(Finding(kind, start, end))
    return sorted(found, key=lambda one: one.start)


def masked(text: str, found: Iterable[Finding]) -> str:
    """`text` with each finding replaced by its kind in brackets: `請洽 [phone_tw_mobile]`."""
    for one in sorted(found, key=lambda one: one.start, reverse=True):
        text = f"{text[: one.start]}[{one.kind}]{text[one.end :]}"
    return text


# Check digits. Each function takes the bare characters, without separators.

_LETTER_VALUES = {letter: value for value, letter in enumerate("ABCDEFGHJKLMNPQRSTUVXYWZIO", start=10)}
_CHINA_PROVINCES = {
    "11", "12", "13", "14", "15", "21", "22", "23", "31", "32", "33", "34", "35", "36", "37", "41", "42", "43", "44",
    "45", "46", "50", "51", "52", "53", "54", "61", "62", "63", "64", "65", "71", "81", "82", "83",
}  # fmt: skip
_CARD_ISSUERS = re.compile(  # the ranges that the issuers publish, with their lengths
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}"  # American Express, Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12,15}"  # JCB
    r"|(?:6011|64[4-9]\d|65\d{2}|62\d{2})\d{12,15}"  # Discover, UnionPay
)
# Length by country, from the IBAN registry that SWIFT keeps for ISO 13616.
_IBAN_LENGTHS = {
    country: int(length)
    for length, countries in (
        line.split(":")
        for line in (
            "15:NO", "16:BE", "18:DK FI FK FO GL NL SD", "19:MK SI", "20:AT BA EE KZ LT LU MN XK", "21:CH HR LI LV",
            "22:BG BH CR DE GB GE IE ME RS VA", "23:AE GI IL IQ OM SO TL", "24:AD CZ ES MD PK RO SA SE SK TN VG",
            "25:LY PT ST", "26:IS TR", "27:BI DJ FR GR IT MC MR SM", "28:AL AZ BY CY DO GT HN HU LB NI PL SV",
            "29:BR EG PS QA UA", "30:JO KW MU YE", "31:MT SC", "32:LC", "33:RU",
        )
    )
    for country in countries.split()
}  # fmt: skip


def is_taiwan_id(value: str) -> bool:
    """A Taiwanese identity or resident certificate number whose check digit is right.

    Source: 國民身分證統一編號 of the Ministry of the Interior; resident certificates have 8 or 9 in second place since
    2021-01-02 and had a letter from A to D before (National Immigration Agency). A letter stands for two digits, of
    which a letter in second place keeps the last; the sum weighted with 1, 9, 8, …, 1, 1 is a multiple of 10.
    """
    first, second = _LETTER_VALUES[value[0]], value[1]
    second_digit = _LETTER_VALUES[second] % 10 if second.isalpha() else int(second)
    digits = [first // 10, first % 10, second_digit, *map(int, value[2:])]
    weights = (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1)
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=True)) % 10 == 0


def is_china_resident_id(value: str) -> bool:
    """A resident identity number of 18 characters with a province, a date of birth since 1900 and its check character.

    Source: GB 11643-1999, check character by ISO 7064 MOD 11-2: with weights 2^17, …, 2, 1 (mod 11) and X as 10, the
    sum is 1 (mod 11).
    """
    try:
        born = datetime.date(int(value[6:10]), int(value[10:12]), int(value[12:14]))
    except ValueError:
        return False
    digits = [10 if char in "Xx" else int(char) for char in value]
    checks = sum(digit * pow(2, 17 - place, 11) for place, digit in enumerate(digits)) % 11 == 1
    return checks and value[:2] in _CHINA_PROVINCES and datetime.date(1900, 1, 1) <= born <= datetime.date.today()


def is_credit_card(digits: str) -> bool:
    """A card number in a known issuer's range with a right check digit, and no EAN-13 bar code.

    Source: ISO/IEC 7812-1, annex B (Luhn): every second digit from the right is doubled, its digits added, and the sum
    is a multiple of 10. The weights 1, 3, 1, 3, … of EAN-13 are those of the GS1 General Specifications.
    """
    values = [int(digit) for digit in reversed(digits)]
    luhn = sum(values[::2]) + sum(sum(divmod(2 * value, 10)) for value in values[1::2])
    bar_code = len(values) == 13 and (sum(values[::2]) + 3 * sum(values[1::2])) % 10 == 0
    return luhn % 10 == 0 and not bar_code and bool(_CARD_ISSUERS.fullmatch(digits))


def is_iban(value: str) -> bool:
    """An IBAN with its country's length and right check digits.

    Source: ISO 13616-1, check digits by ISO 7064 MOD 97-10: with the first four characters moved to the end and letters
    as 10 to 35, the number is 1 (mod 97).
    """
    digits = "".join(str(int(char, 36)) for char in value[4:] + value[:4])
    return len(value) == _IBAN_LENGTHS.get(value[:2]) and int(digits) % 97 == 1


# Each takes a match of its pattern and returns where the finding ends, or 0 when it is none.


def _end_of_email(match: re.Match[str]) -> int:
    return 0 if match.group(1).lower() in _FILE_ENDINGS else match.end()


def _end_of_taiwan_id(match: re.Match[str]) -> int:
    """Numbers of invoices (統一發票) have the form of the old resident certificates: two letters and eight digits."""
    invoice = match.group()[1].isalpha() and _INVOICE_WORD.search(_before(match))
    return match.end() if is_taiwan_id(match.group()) and not invoice else 0


def _end_of_china_id(match: re.Match[str]) -> int:
    return match.end() if is_china_resident_id(match.group()) else 0


def _end_of_card(match: re.Match[str]) -> int:
    return match.end() if is_credit_card(_digits(match)) and not _is_other_number(match) else 0


def _end_of_iban(match: re.Match[str]) -> int:
    """Cut to the length of the country: capital letters that follow may belong to the sentence."""
    value, length = match.group(), _IBAN_LENGTHS.get(match.group()[:2], 0)
    ends = [end for end in range(length, len(value) + 1) if len(value[:end].replace(" ", "")) == length]
    if not ends or not is_iban(value[: ends[0]].replace(" ", "")):
        return 0
    after = match.string[match.start() + ends[0] :][:1]
    return 0 if after.isascii() and after.isalnum() else match.start() + ends[0]


def _end_of_phone(match: re.Match[str]) -> int:
    round_number = match.group().endswith("00000")
    return 0 if round_number or _is_other_number(match) else match.end()


def _end_of_landline(match: re.Match[str]) -> int:
    """The area code and what follows must have the lengths of the numbering plan."""
    digits = _digits(match).removeprefix("886").removeprefix("0")
    fits = any(digits.startswith(area) and len(digits) - len(area) in lengths for area, lengths in _TW_AREAS.items())
    said = not match.group().isdigit() or _PHONE_WORD.search(_before(match))
    return _end_of_phone(match) if fits and said else 0


def _end_of_international(match: re.Match[str]) -> int:
    """9 to 15 digits; without separators at least 10, since +12345678 may be an amount."""
    n_digits = len(_digits(match))
    return _end_of_phone(match) if (9 if n_digits + 1 < len(match.group()) else 10) <= n_digits <= 15 else 0


def _digits(match: re.Match[str]) -> str:
    return "".join(filter(str.isdigit, match.group()))


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - 16) : match.start()]


def _is_other_number(match: re.Match[str]) -> bool:
    """The words around it say that it is an order number, an amount and so on."""
    return bool(_OTHER_NUMBER.search(_before(match)) or _UNIT.match(match.string, match.end()))


_Rule = tuple[Kind, re.Pattern[str], Callable[[re.Match[str]], int]]
_EMAIL_RULE: _Rule = ("email", _EMAIL, _end_of_email)
_NUMBER_RULES: tuple[_Rule, ...] = (  # those with check digits come first
    ("iban", _IBAN, _end_of_iban),
    ("taiwan_id", _TAIWAN_ID, _end_of_taiwan_id),
    ("china_resident_id", _CHINA_ID, _end_of_china_id),
    ("credit_card", _CARD, _end_of_card),
    ("phone_tw_mobile", _TW_MOBILE, _end_of_phone),
    ("phone_tw_landline", _TW_LANDLINE, _end_of_landline),
    ("phone_cn_mobile", _CN_MOBILE, _end_of_phone),
    ("phone_international", _INTERNATIONAL, _end_of_international),
)
