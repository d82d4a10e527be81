"""What can be wrong inside one text: invisible characters, remains of markup and chat templates, wrong encodings.

The checks run on every free-text value, so a text without any suspicious character costs one regular-expression
search. Positions are 0-based indexes into the text; messages count characters from 1.
"""

from __future__ import annotations

import functools
import html
import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html.entities import html5
from typing import Literal

import numpy as np

SHOWN_CHARS = 40  # how much of a text a hint shows
MAX_PASSES = 20  # of mending: what is taken out can make neighbours of what was apart; real texts need two


@dataclass(frozen=True)
class TextFault:
    """One kind of fault in a text. `position` is the 0-based index of its first place."""

    code: str
    message: str
    hint: str
    position: int


# Characters, written as the inside of a regular-expression class.

_CONTROL = "\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_MARKS = "\u061c\u200e\u200f"  # at home between right-to-left letters
_EMBEDDINGS = "\u202a-\u202e\u2066-\u2069"
_RIGHT_TO_LEFT = "\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdff\ufe70-\ufefc"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_JOINERS = "\xad\u200b-\u200d"  # with their like: soft hyphen and zero width space
# Never needed. The object replacement character U+FFFC stands where a copied picture was.
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u180e\u2060-\u2064\u206a-\u206f\u2800\u3164\ufeff\uffa0\ufff9-\ufffc"
_TAGS = "\U000e0020-\U000e007e"
_HIDDEN = f"{_FILLERS}\U000e0001{_TAGS}\U000e007f"
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"
# Arabic to Myanmar, Khmer and Mongolian: there joiners shape letters, and zero width spaces part words.
_JOINING_SCRIPTS = "\u0600-\u109f\u1780-\u18af"
_EMOJI = "\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_BEFORE_JOINER = f"{_EMOJI}\ufe0f\udc00-\udfff"  # half of a pair: an emoji too, once the pair is joined
_AFTER_JOINER = f"{_EMOJI}\ud800-\udbff"

_INVISIBLE = re.compile(
    f"\U0001f3f4[{_TAGS}]+\U000e007f"  # the flags of England, Scotland and Wales: seen first, so that their tags pass
    "|(?P<faulty>"
    f"(?<![{_BEFORE_JOINER}{_JOINING_SCRIPTS}])\u200d|(?<=[{_BEFORE_JOINER}])\u200d(?![{_AFTER_JOINER}])"
    f"|(?<![{_JOINING_SCRIPTS}])[\u200b\u200c]"
    f"|(?<![^\\s{_SELECTORS}])[{_SELECTORS}]"  # a variation selector with nothing to select
    "|(?<!Ã)\xad"  # Ã and a soft hyphen are í in the wrong encoding: see mojibake
    f"|[{_HIDDEN}])"
)
_BIDI = re.compile(f"[{_MARKS}{_EMBEDDINGS}]")
_BIDI_AMONG_RIGHT_TO_LEFT = re.compile(f"[{_EMBEDDINGS}]")
_HAS_RIGHT_TO_LEFT = re.compile(f"[{_RIGHT_TO_LEFT}]")
_CONTROLS = re.compile(f"[{_CONTROL}]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_PRIVATE_USE = re.compile(f"[{_PRIVATE}]")
_UNSEEN = re.compile(f"[\0{_CONTROL}{_MARKS}{_EMBEDDINGS}{_JOINERS}{_SELECTORS}{_HIDDEN}]")
# All of these and more: one range is quick where a list is slow, since a class is a bitmap only up to U+FFFF.
_ANYWHERE = (
    f"\0{_CONTROL}{_MARKS}{_EMBEDDINGS}{_JOINERS}{_FILLERS}\ud800-\uf8ff\ufe00-\ufe0f\ufffd\U000e0000-\U0010ffff"
)
_FAULTY = re.compile(f"[{_ANYWHERE}]")

# Markup.

# A data set that was rendered for another model has that model's special tokens in its texts. A tokenizer that knows
# them reads them as tokens wherever they stand: the text ends, or its speaker changes, in the middle. The shapes
# <|...|> (ChatML, Llama 3, Qwen, Phi, gpt-oss), <|turn> and <turn|> (Gemma 4) and <｜...｜> (DeepSeek) mean nothing
# else; other tokens are listed by name. <s> and </s> are tokens of Llama 2 and Mistral, and HTML's strike-through too:
# a pair within a text is HTML, a pair around the whole text, or half a pair, is not. BERT's [MASK] and its like
# belong to no chat template.
_TOKENS = re.compile(
    r"<\|[A-Za-z_][\w.:/-]{0,60}\|?>|<[a-z_]{1,30}\|>|<｜[^<>｜\s]{1,40}｜>"
    r"|</?(?:think|tool_call|tool_response)>"
    r"|<(?:bos|eos|pad|unk|sop|eop|(?:start|end)_of_(?:turn|image|audio|utterance)|BOS_TOKEN|EOS_TOKEN|PAD_TOKEN"
    r"|(?:reserved_|extra_id_|unused)\d{1,4})>"
    r"|</?s>|<</?SYS>>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS|THINK)\]|\[gMASK\]"
)
_STRIKE_THROUGH = re.compile(r"<s>[^<>\[\]]*</s>")
_WHOLE_IN_S = re.compile(rf"\s*{_STRIKE_THROUGH.pattern}\s*")

# Names that HTML has and prose hardly ever puts into angle brackets: <title>, <label>, <input>, <text> and the like are
# left out, since instructions use them as placeholders. What follows the name must look like attributes, so that
# "a <b and c> d" is no tag. Upper-case single letters are left out: <A> may be a stock code.
_TAGS_OF_HTML = re.compile(
    r"<!--|<!(?i:doctype)\s"
    r"|</?(?:(?i:abbr|address|article|aside|big|blockquote|body|br|button|center|cite|col|colgroup|dd|del|div|dl|dt|em"
    r"|embed|figcaption|figure|font|footer|form|h[1-6]|header|hr|html|iframe|img|ins|kbd|li|meta|nav|noscript|ol"
    r"|optgroup|pre|script|section|select|small|span|strike|strong|style|sub|sup|svg|table|tbody|td|textarea|tfoot|th"
    r"|thead|tr|tt|ul|video)|[abipqu])"
    r"(?:\s[^<>=]{0,60}=[^<>]{0,2000})?\s*/?>"
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")

# Encodings.

# cp1252 and Latin-1 differ in 0x80-0x9F; real files hold either, so both spellings of such a byte are understood.
_BYTES = [bytes([byte]) for byte in range(0x80, 0xA0)]
_TO_LATIN_1 = {ord(byte.decode("cp1252")): byte[0] for byte in _BYTES if byte.decode("cp1252", "ignore")}
_CP1252_ONLY = "".join(map(chr, _TO_LATIN_1))
_FOLLOWING = f"[\x80-\xbf{_CP1252_ONLY}]"
# UTF-8 sequences read as cp1252: É, Ê, Ë, Õ, Ö, Ü, Ý, Þ, ß do not start one here. Before a quotation mark or an
# ellipsis they are ordinary (Spaß“), and the scripts that they would stand for (N'Ko, Syriac, ...) are very rare.
_UTF8_AS_CP1252 = re.compile(f"[Â-ÈÌ-Ô×-Û]{_FOLLOWING}|[à-ï]{_FOLLOWING}{{2}}|[ð-ô]{_FOLLOWING}{{3}}")
# Â and Ã are left out: what follows them is often lost, since à ends in a no-break space.
_ORDINARY_IN_CP1252 = re.compile(f"[\x80-\xc1\xc4-\xff{_CP1252_ONLY}]")
# Certain even alone: ’ “ – … U+FFFD, the BOM, í, and whatever holds a C1 control character.
_CERTAIN = re.compile("â€|ï¿½|ï»¿|Ã\xad|.[\x80-\x9f]", re.DOTALL)
_MAYBE_CP1252 = re.compile(f"[Â-ô]{_FOLLOWING}")  # many times faster than the sequences themselves
_LEFT_OVER = re.compile("(?:锟斤拷)+|(?:錕斤拷)+|烫{3,}|燙{3,}")


def _leads(codec: str) -> str:
    """What the first two bytes of punctuation, kana and CJK ideographs in UTF-8 are when read as `codec`."""
    seconds = {0xE2: [0x80], 0xE3: range(0x80, 0x84), 0xEF: [0xBC, 0xBD, 0xBF]}
    pairs = [bytes([first, second]) for first in seconds for second in seconds[first]]
    pairs += [bytes([first, second]) for first in range(0xE4, 0xEA) for second in range(0x80, 0xC0)]
    return "".join(char for pair in pairs if len(char := pair.decode(codec, "ignore")) == 1)


# Share of what is not ASCII that must be readable after the repair: what was read as GBK keeps nearly all of its bytes,
# Big5 has no characters for 0x80-0xA0 and loses about half. Measured on 15,500 Chinese texts of 4 to 300 characters and
# 20,000 lists of rare given names (the ordinary texts that come nearest): none alarms as it is. Read as gb18030, 90 %
# of those under 8 characters do and 99.8 % of those from 30 characters on; read as cp950, 1 % and 94 %.
_MIN_REPAIRED = {"gb18030": 0.55, "cp950": 0.1}
_CODEC_NAMES = {"gb18030": "GBK/GB18030", "cp950": "Big5/cp950"}
_LEADS = {codec: re.compile(f"[{_leads(codec)}]") for codec in _MIN_REPAIRED}
_ANY_LEAD = re.compile(f"[錕烫燙{''.join(map(_leads, _MIN_REPAIRED))}]")
_READABLE = re.compile("[\u2010-\u2027\u3001-\u30ff\u3400-\u9fff\uac00-\ud7a3\uff01-\uff5e]")
_NOT_ASCII = re.compile("[^\x00-\x7f\ufffd]")
# An English ’ or “ in UTF-8 read as GBK takes the next letter with it: It’s becomes It鈥檚, and before a space 鈥?.
_QUOTE_AND_LETTER = [bytes([last, ord(c)]) for last in b"\x93\x94\x98\x99\x9c\x9d" for c in string.ascii_letters]
_QUOTES_AS_GBK = re.compile(f"鈥[{''.join(pair.decode('gbk') for pair in _QUOTE_AND_LETTER)}?\ufffd]")

# The gate: one pass over the text for anything that a check below could want to see.
_SUSPICIOUS = re.compile(f"[{_ANYWHERE}<&\\[Â-ô{_ANY_LEAD.pattern[1:-1]}]")


def faults_in(text: str) -> list[TextFault]:
    """Every kind of fault in `text`, at most one for each code, with its count and first place in the message.

    Codes: nul_character, control_character, lone_surrogate, bidi_character, invisible_character,
    replacement_character, private_use_character, chat_template_token, html_tag, html_entity, mojibake.
    """
    if not _SUSPICIOUS.search(text):
        return []
    faults = [_character_fault(text, code, places) for code, places in _faulty_characters(text).items()]
    if "<" in text or "[" in text:
        faults += _markup_faults(text)
    if "&" in text:
        faults += _entity_faults(text)
    return faults + _mojibake(text)


def mended(text: str) -> tuple[str, list[str]]:
    """`text` without what can be taken out without judgement, and the codes of what was done.

    Removed: NUL, control, bidirectional and invisible characters, exactly where `faults_in` names them; vertical tab,
    form feed and next line become a space, so that words stay apart. Two halves of a surrogate pair become their
    character (code lone_surrogate); a half alone stays. Idempotent.
    """
    if not _FAULTY.search(text):
        return text, []
    done: list[str] = []
    for _ in range(MAX_PASSES):
        joined = _PAIR.sub(_joined, text)
        faulty = {code: set(places) for code, places in _faulty_characters(joined).items() if code in _MENDED}
        codes = [*faulty] if joined == text else ["lone_surrogate", *faulty]
        if not codes:
            break
        done += codes
        gone = set().union(*faulty.values())
        text = "".join(_BREAKS.get(c, "") if i in gone else c for i, c in enumerate(joined)) if gone else joined
    return text, list(dict.fromkeys(done))


def describe(text: str) -> str:
    """The text in quotes, with everything that cannot be seen as an escape: `'Posi\\u200btive'`."""
    return _UNSEEN.sub(lambda match: _escape(match.group()), repr(text))


# Faulty characters.

_MENDED = ("nul_character", "control_character", "bidi_character", "invisible_character")
_BREAKS = {"\x0b": " ", "\x0c": " ", "\x85": " "}
_WORDS = {  # code -> what it is called, what to do
    "nul_character": (
        "NUL character",
        "padding of fixed-width fields, or UTF-16 read as something else; --fix removes it",
    ),
    "control_character": ("control character", "--fix removes it; it often comes from a terminal, a PDF or an export"),
    "lone_surrogate": (
        "surrogate",
        "half of a character that was cut in two: take the text from its source again",
    ),
    "bidi_character": ("bidirectional control character", "--fix removes it; it reorders what is shown, unseen"),
    "invisible_character": ("invisible character", "--fix removes it; texts that look the same would differ"),
    "replacement_character": (
        "replacement character",
        "a character was lost in a conversion before: take the text from its source again",
    ),
    "private_use_character": (
        "private use character",
        "a font's own character (造字) or Big5-HKSCS: write the standard character it stands for",
    ),
}


def _faulty_characters(text: str) -> dict[str, list[int]]:
    """Code -> positions of the characters that have this fault, in the order of the text."""
    if not _FAULTY.search(text):
        return {}
    bidi = _BIDI_AMONG_RIGHT_TO_LEFT if _HAS_RIGHT_TO_LEFT.search(text) else _BIDI
    # Bytes of text in a wrong encoding can look like control characters and soft hyphens; without them it is lost.
    needed = {place for match in _latin_mojibake(text) for place in range(*match.span())}
    found = {
        "nul_character": [match.start() for match in re.finditer("\0", text)],
        "control_character": [m.start() for m in _CONTROLS.finditer(text) if m.start() not in needed],
        "lone_surrogate": [match.start() for match in _SURROGATES.finditer(text)],
        "bidi_character": [match.start() for match in bidi.finditer(text)],
        "invisible_character": [
            m.start("faulty") for m in _INVISIBLE.finditer(text) if m["faulty"] and m.start() not in needed
        ],
        "replacement_character": [match.start() for match in re.finditer("\ufffd", text)],
        "private_use_character": [match.start() for match in _PRIVATE_USE.finditer(text)],
    }
    return {code: places for code, places in found.items() if places}


def _character_fault(text: str, code: str, places: list[int]) -> TextFault:
    words, hint = _WORDS[code]
    first = places[0]
    pairs = _PAIR.findall(text) if code == "lone_surrogate" else []
    message = f"{_counted(len(places), words)}, the first {_name(text[first])} at character {first + 1}"
    if pairs:
        made = _name(_join(pairs[0])) + (" and others" if len(set(pairs)) > 1 else "")
        message += f"; {_counted(len(pairs), 'pair')} of them together give {made}"
        hint = "CESU-8, as some databases write emoji; --fix joins the halves"
        if 2 * len(pairs) < len(places):
            hint += ", the others are lost: take the text from its source again"
    return TextFault(code, message, hint, first)


def _join(pair: str) -> str:
    return pair.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _joined(match: re.Match[str]) -> str:
    return _join(match.group())


def _name(char: str) -> str:
    """`U+200B ZERO WIDTH SPACE`; characters without a name are called by their category."""
    categories = {"Cc": "CONTROL CHARACTER", "Co": "PRIVATE USE CHARACTER", "Cs": "SURROGATE"}
    name = unicodedata.name(char, "") or categories.get(unicodedata.category(char), "UNASSIGNED")
    return f"U+{ord(char):04X} {name}"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _counted(n: int, words: str) -> str:
    plural = f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"
    return f"{n} {words if n == 1 else plural}"


def _shown(text: str) -> str:
    """At most 40 characters of a text, quoted."""
    return describe(text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…")


# Markup.


def _markup_faults(text: str) -> list[TextFault]:
    """Special tokens of chat templates, and HTML tags."""
    strikes = [] if _WHOLE_IN_S.fullmatch(text) else list(_STRIKE_THROUGH.finditer(text))
    # The same length, so that positions stay.
    rest = _STRIKE_THROUGH.sub(lambda match: " " * len(match.group()), text) if strikes else text
    tokens = list(_TOKENS.finditer(rest))
    tags = sorted([*strikes, *_TAGS_OF_HTML.finditer(text)], key=lambda match: match.start())
    return _markup_fault(
        "chat_template_token",
        "special token of a chat template",
        "special tokens of chat templates",
        tokens,
        "a tokenizer reads it as the token, not as text: train on the raw text, the task renders its own template",
    ) + _markup_fault(
        "html_tag", "HTML tag", "HTML tags", tags, "keep the text alone: the model would learn to expect tags"
    )


def _entity_faults(text: str) -> list[TextFault]:
    known = [match for match in _ENTITY.finditer(text) if _stands_for_something(match.group())]
    meaning = f"{known[0].group()} stands for {describe(html.unescape(known[0].group()))}; " if known else ""
    hint = f"{meaning}unescape the texts once (Python: html.unescape)"
    return _markup_fault("html_entity", "HTML entity", "HTML entities", known, hint)


def _stands_for_something(entity: str) -> bool:
    return html.unescape(entity) not in ("", "\ufffd") if entity[1] == "#" else entity[1:] in html5


def _markup_fault(code: str, one: str, many: str, matches: list[re.Match[str]], hint: str) -> list[TextFault]:
    if not matches:
        return []
    first = matches[0]
    words = one if len(matches) == 1 else many
    message = f"{len(matches)} {words}, the first {_shown(first.group())} at character {first.start() + 1}"
    return [TextFault(code, message, hint, first.start())]


# Mojibake.


def _mojibake(text: str) -> list[TextFault]:
    """Text that was read in another encoding than it was written in; at most one fault."""
    if matches := _latin_mojibake(text):
        repaired = _UTF8_AS_CP1252.sub(lambda match: _from_latin(match.group()) or match.group(), text)
        return [_mojibake_fault("cp1252/Latin-1", repaired, matches[0].start())]
    if not _ANY_LEAD.search(text):
        return []
    if left := _LEFT_OVER.search(text):
        cause = "uninitialised memory" if left.group()[0] in "烫燙" else "replacement characters read as GBK"
        message = f"{_shown(left.group())} at character {left.start() + 1}: {cause}"
        return [TextFault("mojibake", message, "the text is lost: take it from its source again", left.start())]
    if quotes := _QUOTES_AS_GBK.search(text):
        return [_mojibake_fault("GBK/GB18030", _reread(text, "gb18030"), quotes.start())]
    for codec, leads in _LEADS.items():
        if repaired := _repaired(text, codec):
            return [_mojibake_fault(_CODEC_NAMES[codec], repaired, leads.search(text).start())]
    return []


def _mojibake_fault(codec: str, repaired: str, position: int) -> TextFault:
    message = f"looks like UTF-8 that was read as {codec}, from character {position + 1} on"
    return TextFault(
        "mojibake", message, f"it would read {_shown(repaired)}: export the source again as UTF-8", position
    )


def _latin_mojibake(text: str) -> list[re.Match[str]]:
    """The UTF-8 sequences that were read as cp1252 or Latin-1; empty for ordinary text.

    Ordinary are texts in which any accented letter, quotation mark or symbol is outside of such a sequence, and those
    with fewer than 4 characters in sequences, except for sequences that occur in no language.
    """
    if not _MAYBE_CP1252.search(text):
        return []
    matches = [match for match in _UTF8_AS_CP1252.finditer(text) if _from_latin(match.group())]
    if any(_CERTAIN.search(match.group()) for match in matches):
        return matches
    found = "".join(match.group() for match in matches)
    n_ordinary = len(_ORDINARY_IN_CP1252.findall(text)) - len(_ORDINARY_IN_CP1252.findall(found))
    return matches if len(found) >= 4 and not n_ordinary else []


def _from_latin(sequence: str) -> str | None:
    """The character whose UTF-8 bytes `sequence` shows as cp1252 or Latin-1."""
    try:
        return sequence.translate(_TO_LATIN_1).encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return None


def _repaired(text: str, codec: str) -> str | None:
    """`text` written as `codec` and read as UTF-8, where that makes sense of it; None for ordinary text.

    In Chinese or Japanese UTF-8 that was read as `codec`, about every third pair of bytes starts a character. As
    characters of `codec` these pairs are rare ones, so where a fifth of the characters are such, a repair is tried.
    """
    leads = _LEADS[codec].findall(text)
    n_leads = len(leads)
    n_chars = len(_NOT_ASCII.findall(text)) if n_leads >= 2 else 0
    if n_chars < 4 or 5 * n_leads < n_chars:
        return None
    repaired = _reread(text, codec)
    n_readable, n_left = len(_READABLE.findall(repaired)), len(_NOT_ASCII.findall(repaired)) + repaired.count("\ufffd")
    # A few names of rare characters fit by chance; with so little to go by, nothing may be lost in the repair.
    share = _MIN_REPAIRED[codec] if n_chars >= 8 and len(set(leads)) >= 3 else 1
    return repaired if n_readable >= max(2, share * n_left) else None


def _reread(text: str, codec: str) -> str:
    return text.replace("\ufffd", "?").encode(codec, "replace").decode("utf-8", "replace")


# Script.

_TRADITIONAL, _SIMPLIFIED, _JAPANESE = 1, 2, 3
# Characters that only one of the two standards has, though both scripts use them: names and places (勐海, 李煊, 祐),
# food (烏桕, 焗烤, 蒟蒻), words of the net and of Cantonese (囧, 妳, 冇), and 着, which Hong Kong writes as well.
_OF_BOTH_SCRIPTS = "着勐桕温煊囧妳焗蒟蒻祐昇玥珺瑄冇佢咁嘢"


def script_counts(text: str) -> tuple[int, int]:
    """How many characters of `text` exist in Traditional and how many in Simplified Chinese alone."""
    _, traditional, simplified, _ = _script_counts(text)
    return traditional, simplified


def script_of(text: str) -> Literal["traditional", "simplified", "mixed"] | None:
    """The script of a Chinese text, or None where no character decides.

    Decisive are characters that only one of GB 2312 and Big5 (with its Microsoft extensions, cp950) has. Both kinds
    make a text "mixed" only with at least two of each; otherwise the majority decides. Japanese, recognised by kana
    and by characters that only JIS X 0208 has, is None.
    """
    _, traditional, simplified, japanese = _script_counts(text)
    if traditional == simplified == 0 or 2 * japanese >= traditional + simplified:
        return None
    if min(traditional, simplified) >= 2:
        return "mixed"
    if traditional == simplified:
        return None
    return "traditional" if traditional > simplified else "simplified"


def _script_counts(text: str) -> list[int]:
    """Counts of four kinds of characters: of no script, traditional, simplified, Japanese."""
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")
    return np.bincount(_script_table().take(units), minlength=4).tolist()


@functools.cache
def _script_table() -> np.ndarray:
    """UTF-16 code unit -> script, shape (65536,), derived from Python's codecs."""
    table = np.zeros(1 << 16, dtype=np.intp)
    for point in range(0x4E00, 0xA000):
        char = chr(point)
        if char in _OF_BOTH_SCRIPTS:
            continue
        mainland, taiwan = _exists_in(char, "gb2312"), _exists_in(char, "cp950")
        if mainland != taiwan:
            table[point] = _SIMPLIFIED if mainland else _TRADITIONAL
        elif not mainland and _exists_in(char, "shift_jis"):
            table[point] = _JAPANESE
    table[0x3041:0x30FB] = _JAPANESE  # kana
    return table


def _exists_in(char: str, codec: str) -> bool:
    return bool(char.encode(codec, "ignore"))


# Labels.


def label_difference(value: str, label: str) -> str | None:
    """Why `value` is not `label` though it looks like it: "stray spaces and full-width forms".

    None when the two are the same, and when they still differ once invisible characters, width, case and white space
    are taken away.
    """
    if value == label or _plain(value) != _plain(label):
        return None
    reasons = [reason for step in _PLAIN_STEPS if (reason := _reason(step, value, label))]
    return " and ".join(reasons) or "other Unicode forms"


_PLAIN_STEPS: Mapping[str, Callable[[str], str]] = {
    "invisible": lambda text: _UNSEEN.sub("", text),
    "form": lambda text: unicodedata.normalize("NFKC", text),
    "case": str.casefold,
    "spaces": lambda text: "".join(text.split()),
}


def _plain(text: str, without: str | None = None) -> str:
    for name, step in _PLAIN_STEPS.items():
        if name != without:
            text = step(text)
    return text


def _reason(step: str, value: str, label: str) -> str | None:
    """The phrase for `step` when the two are the same only because of it."""
    if _plain(value, step) == _plain(label, step):
        return None
    if step == "invisible":
        return f"invisible characters ({_names(_UNSEEN.findall(value) or _UNSEEN.findall(label))})"
    if step == "form":
        changed = [c for c in value + label if not unicodedata.is_normalized("NFKC", c)]
        if not changed:  # a letter and its accent, as one character or as two
            return "other Unicode forms"
        wide = all("\uff00" <= c <= "\uffef" for c in changed)
        return "full-width forms" if wide else f"other Unicode forms ({_names(changed)})"
    return {"case": "different case", "spaces": "stray spaces"}[step]


def _names(chars: Iterable[str]) -> str:
    return ", ".join(map(_name, dict.fromkeys(chars)))
