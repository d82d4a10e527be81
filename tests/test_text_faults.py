"""Faults inside one text: each is found where it stands, ordinary texts of many languages never alarm."""

from __future__ import annotations

import csv
import importlib.util
import json
import random
import re
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from conftest import BUNDLE
from tasklib.data.text_faults import (
    describe,
    faults_in,
    label_difference,
    mended,
    script_counts,
    script_of,
)

SHARED = BUNDLE.parent / "shared" / "data"
with_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason="shared data sets are not beside the checkout")

MENDED = {"nul_character", "control_character", "bidi_character", "invisible_character"}
CODES = MENDED | {
    "lone_surrogate", "replacement_character", "private_use_character", "chat_template_token", "html_tag",
    "html_entity", "mojibake",
}  # fmt: skip

# Nothing is wrong with any of these.
ORDINARY = {
    "zh-TW": "央行總裁表示，第三季經濟成長率上修至3.2%；「景氣可望回溫」，但鎮公所與鋼鐵業者仍持觀望。\n　　25°C。",
    "zh-CN": "昨天他淘到一只旧瓷碗，觉得“挺值”——老板说：‘您再看看吧……’ 姗姗、璐璐和瑜都笑了。",
    "zh-HK": "佢哋話今晚唔返嚟食飯，咁我哋自己煮啦！着緊嘅係價錢。",
    "ja": "東京の気温は25℃まで上がり、「暑いですね」と彼女は笑った。ﾊﾝｶｸ文字、㈱や①も使う。楠木さんは浣熊を見た。",
    "ko": "오늘 서울의 날씨는 맑고, 내일은 비가 올 예정입니다. “우산을 챙기세요!”라고 했다.",
    "en": "It’s “fine” — the naïve café owner’s résumé… cost £5 (€6), AT&T; R&D <JNJ.N> [nL4N2Z028U] a < b > c.",
    "fr": "« À l’été, où Noël a-t-il goûté ça ? » L’œuvre coûte 5 €… Château, pâté, forêt, naïf : déjà vu à Évry !",
    "de": "„Spaß“ heißt Spaß… Größe: 5 µm, Straße §3, „Öl“, »Übung«, 20 °C, süß–sauer. Maß… Fuß“ Ä…",
    "es": "¿Qué tal, señor Muñoz? ¡Mañana será otro día! «Sí», dijo él… El año pasó rápido; pingüino, corazón.",
    "pt": "Amanhã…” disse João. “Não há pão”, NÃO, AÇÃO, MAÇÃ… avó e avô: é à tarde. Só três.",
    "vi": "Hôm nay trời đẹp quá, chúng ta đi ăn phở ở Hà Nội nhé! ĐẶC BIỆT: giá 50.000₫, ẤM ÁP.",
    "tr": "İstanbul’da çok güzel bir gün geçirdik; ağaçlar, çiçekler ve şarkılar… KÂĞIT",
    "pl": "Zażółć gęślą jaźń – „cytat”, 5 zł. Łódź jest piękna.",
    "ru": "Сегодня хорошая погода — «очень», сказал он… 5 ₽.",
    "ar": "مرحبا بكم في الموقع\u200f! السعر 5 دولار، می\u200cخواهم",
    "he": "שלום לכולם\u200f (2024) \u200eABC",
    "hi": "क्ष का रूप क्\u200dष और क्\u200cष",
    "th": "ภาษาไทย\u200bง่ายมาก",
    "emoji": "👨‍👩‍👧‍👦 👩🏽‍🚀 ❤️‍🔥 1️⃣ ☎️ 🏳️‍🌈 🇹🇼 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f ©️",
    "variants": "葛\U000e0100飾区、辻\U000e0101、≨\ufe00",
    "math": "若 a <b and c> d，且 x≤y，則 f(x)=∑aᵢxⁱ；±5µm、¼、×10³、Ø5、α‐β、10° ± 2°",
    "markup-like": "&c; R&D; AT&T &copy 2024 <title> <書名> [INFO] <3 <- -> << >> {user} |x| <A> a<b",
    "food": "火鍋好燙燙！这汤真烫烫的",
    "nobelium": "元素锘与锟锫",
    "whitespace": "第一行\r\n第二行\t欄位\u3000全形空白\xa0不斷行",
    "empty": "",
}


def found(text: str) -> dict[str, int]:
    """Code -> 0-based position; a code that stands twice fails."""
    faults = faults_in(text)
    assert len({fault.code for fault in faults}) == len(faults)
    return {fault.code: fault.position for fault in faults}


def only(text: str):
    (fault,) = faults_in(text)
    return fault


@pytest.mark.parametrize("text", ORDINARY.values(), ids=ORDINARY)
def test_ordinary_texts_of_many_languages_do_not_alarm_and_stay_as_they_are(text):
    assert faults_in(text) == []
    assert mended(text) == (text, [])


@pytest.mark.parametrize("text", ORDINARY.values(), ids=ORDINARY)
def test_no_piece_of_an_ordinary_text_looks_like_a_wrong_encoding(text):
    pieces = [text[start : start + size] for size in (4, 6, 9, 15) for start in range(len(text))]
    assert [piece for piece in pieces if "mojibake" in found(piece)] == []


# Characters.


@pytest.mark.parametrize(
    ("char", "code"),
    [
        ("\0", "nul_character"),
        *((char, "control_character") for char in "\x01\x07\x08\x0b\x0c\x0e\x1b\x1f\x7f\x80\x85\x9f"),
        *((char, "bidi_character") for char in "\u202a\u202e\u2066\u2069\u200e\u200f\u061c"),
        *((char, "invisible_character") for char in "\u200b\u200c\u200d\u2060\xad\ufeff\u3164\u115f\uffa0\u180e\u2063"),
        *((char, "invisible_character") for char in "\u2800\u034f\ufffc\U000e0041\U000e0001"),
        ("\ufffd", "replacement_character"),
        *((char, "private_use_character") for char in "\ue000\uf8ff\U000f0000\U0010fffd"),
        *((char, "lone_surrogate") for char in "\ud800\udfff"),
    ],
)
def test_a_faulty_character_is_named_with_its_code_point_count_and_place(char, code):
    text = f"利多{char}消息{char}"
    fault = only(text)
    assert (fault.code, fault.position) == (code, 2)
    assert fault.message.startswith("2 ") and "at character 3" in fault.message
    assert f"U+{ord(char):04X} {unicodedata.name(char, '')}".rstrip() in fault.message
    assert char not in fault.message + fault.hint and fault.hint


def test_no_category_of_unseen_characters_passes_unnoticed():
    """Every control, format, surrogate and private use character of Unicode, on its own between two ideographs."""
    passed = [
        f"U+{point:04X}"
        for point in range(0x110000)
        if unicodedata.category(chr(point)) in ("Cc", "Cf", "Cs", "Co")
        and chr(point) not in "\t\n\r"
        and not found(f"中{chr(point)}文")
    ]
    # Signs of other scripts that are drawn: Arabic and Syriac number signs, Egyptian, shorthand and musical notation.
    drawn = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    drawn |= {*range(0x13430, 0x13440), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B)}
    assert set(passed) - {f"U+{point:04X}" for point in drawn} == set()


@pytest.mark.parametrize("char", ["\t", "\n", "\r", "\u3000", "\xa0", "\u2028"])
def test_white_space_is_no_control_character(char):
    assert found(f"甲{char}乙") == {}


def test_each_code_is_reported_once_with_its_own_first_place():
    text = "a\u200b\0\x07\u202e\ue000\ufffd\ud800\0<br>&amp;<|im_end|>"
    assert found(text) == {
        "invisible_character": 1, "nul_character": 2, "control_character": 3, "bidi_character": 4,
        "private_use_character": 5, "replacement_character": 6, "lone_surrogate": 7, "html_tag": 9, "html_entity": 13,
        "chat_template_token": 18,
    }  # fmt: skip


def test_a_joiner_is_wanted_inside_an_emoji_and_nowhere_else():
    assert found("👩\u200d🚀") == {}
    assert found("👩\u200d") == {"invisible_character": 1}
    assert found("a\u200d🚀") == {"invisible_character": 1}
    assert found("中\u200d文") == {"invisible_character": 1}


def test_a_variation_selector_needs_a_character_before_it():
    assert found("❤\ufe0f") == {}
    assert found("\ufe0f❤") == {"invisible_character": 0}
    assert found("好 \ufe0f") == {"invisible_character": 2}
    assert found("好\ufe0f\ufe0f") == {"invisible_character": 2}


def test_tags_are_wanted_in_flags_and_named_elsewhere():
    flag = "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
    assert found(flag) == {}
    assert found(flag + "\U000e0041") == {"invisible_character": len(flag)}


def test_right_to_left_marks_are_ordinary_among_right_to_left_letters_and_embeddings_are_not():
    assert found("שלום\u200f ABC") == {}
    assert found("ABC\u200f") == {"bidi_character": 3}
    assert found("שלום\u202e ABC") == {"bidi_character": 4}


def test_two_halves_that_make_a_character_are_told_from_a_half_alone():
    pair = only("好\ud83d\ude02")
    assert pair.position == 1 and "U+1F602 FACE WITH TEARS OF JOY" in pair.message and "CESU-8" in pair.hint
    half = only("好\ud83d")
    assert "pair" not in half.message and "source" in half.hint
    both = only("好\ud83d\ude02\ud83d")
    assert both.message.startswith("3 surrogates") and "1 pair" in both.message and "lost" in both.hint


# Mending.


@pytest.mark.parametrize(
    ("text", "clean", "codes"),
    [
        ("利\0多\0\0", "利多", ["nul_character"]),
        ("a\x07\x1bb", "ab", ["control_character"]),
        ("第一行\x0b第二行\x0c第三行\x85", "第一行 第二行 第三行 ", ["control_character"]),
        ("Posi\u200btive\ufeff", "Positive", ["invisible_character"]),
        ("\u202e利多", "利多", ["bidi_character"]),
        ("笑\ud83d\ude02死", "笑😂死", ["lone_surrogate"]),
        ("\ud83d\udc69\u200d\ud83d\ude80", "👩‍🚀", ["lone_surrogate"]),
        ("\ud83d\u200b\ude02", "😂", ["invisible_character", "lone_surrogate"]),
        ("半\ud83d個", "半\ud83d個", []),
        ("&amp;<br><|im_end|>\ufffd\ue000", "&amp;<br><|im_end|>\ufffd\ue000", []),
        ("ä½\xa0å¥½ä¸\x96ç\x95\x8c", "ä½\xa0å¥½ä¸\x96ç\x95\x8c", []),
        ("PolÃ\xadtica", "PolÃ\xadtica", []),
        ("乾淨", "乾淨", []),
    ],
)
def test_what_needs_no_judgement_is_mended_and_nothing_else(text, clean, codes):
    assert mended(text) == (clean, codes)


nasty = st.text(
    st.sampled_from(
        "a<>&;sÃ\xad\x80\x85中 \n\0\x07\x0b\u200b\u200d\u200f\u202e\ufe0f❤👩🏴\U000e0041\U000e007fשक\ufffd\ue000"
        "\ud83d\ude02\udb40\udc41â€™锟斤拷浣犲ソ"
    ),
    max_size=30,
) | st.text(st.characters(), max_size=30)


@settings(max_examples=1000)
@given(nasty)
@example("🏴\U000e0041\U000e0041\U000e007f")
@example(" \u200b\ufe0f\ufe0f")
def test_mended_text_has_nothing_left_to_mend_and_mending_twice_changes_nothing(text):
    clean, codes = mended(text)
    assert mended(clean) == (clean, [])
    assert not MENDED & found(clean).keys()
    assert not re.search("[\ud800-\udbff][\udc00-\udfff]", clean)
    assert bool(codes) == (clean != text)
    assert set(codes) <= found(text).keys() | {"lone_surrogate"} | MENDED
    kept = iter(text)
    if "lone_surrogate" not in codes:
        assert all(char in kept for char in clean.replace(" ", "")), "what is kept stays in its order"


@settings(max_examples=1000)
@given(nasty)
def test_any_text_gives_known_codes_and_places_inside_it(text):
    positions = found(text)
    assert positions.keys() <= CODES
    assert all(0 <= position < len(text) for position in positions.values())
    for fault in faults_in(text):
        assert describe(fault.message)[1:-1].replace("\\'", "'").replace("\\\\", "\\") == fault.message, "all visible"
    script_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "\udb40" * 30_000 + "\udc41" * 30_000, "\u200b" * 300_000, "<a x=" * 60_000, "<s>" * 60_000,
        "<s>x</s>" * 30_000, "&#" * 100_000, "<|a" * 60_000, "🏴" + "\U000e0041" * 200_000, "Ã©" * 100_000,
        "â€" * 100_000, "浣犲ソ" * 60_000, " " * 300_000 + "<s>", "👩\u200d" * 100_000, "鈥" * 200_000,
    ],
    ids=lambda text: ascii(text[:4]),
)  # fmt: skip
def test_no_long_text_makes_the_checks_hang(text):
    started = time.perf_counter()
    faults_in(text)
    mended(text)
    assert time.perf_counter() - started < 20


# Markup.


@pytest.mark.parametrize(
    "token",
    [
        "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|user|>", "<|return|>",
        "<|reserved_special_token_12|>", "<|turn>", "<turn|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>",
        "<think>", "</think>", "<tool_call>", "<｜User｜>", "<｜begin▁of▁sentence｜>", "[INST]", "[/INST]", "<<SYS>>",
        "<</SYS>>", "[gMASK]", "<s>", "</s>", "<unk>", "<reserved_106>",
    ],
)  # fmt: skip
def test_a_special_token_of_a_chat_template_is_named(token):
    fault = only(f"利多{token}消息")
    assert (fault.code, fault.position) == ("chat_template_token", 2)
    assert token in fault.message


def chat_templates() -> list[Path]:
    """The chat templates that TRL ships, without importing it."""
    (folder,) = importlib.util.find_spec("trl").submodule_search_locations
    return sorted((Path(folder) / "chat_templates").glob("*.jinja"))


def test_a_conversation_rendered_with_any_chat_template_of_trl_is_recognised():
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals.update(strftime_now=lambda form: "2026-01-01", raise_exception=ValueError)
    rendered = {}
    for path in chat_templates():
        source = re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", path.read_text(encoding="utf-8"))
        uses_parts = "['text']" in source and "is string" not in source  # llava: content as a list
        content = [[{"type": "text", "text": word}] if uses_parts else word for word in ("Good?", "Yes.")]
        messages = [{"role": role, "content": c} for role, c in zip(("user", "assistant"), content, strict=True)]
        try:
            rendered[path.name] = environment.from_string(source).render(messages=messages, bos_token="", eos_token="")
        except Exception:  # a template of another kind of message says nothing about this check
            continue
    assert len(rendered) > len(chat_templates()) * 0.9 > 20
    assert [name for name, text in rendered.items() if "chat_template_token" not in found(text)] == []


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("原價<s>100</s>元，特價80元", {"html_tag": 2}),
        ("<s>甲</s>或<s>乙</s>", {"html_tag": 0}),
        ("<s>利多消息</s>", {"chat_template_token": 0}),
        (" <s>利多消息</s>\n", {"chat_template_token": 1}),
        ("<s>[INST] 問 [/INST] 答</s>", {"chat_template_token": 0}),
        ("利多</s>", {"chat_template_token": 2}),
        ("利多<s>", {"chat_template_token": 2}),
    ],
)
def test_strike_through_is_html_and_a_token_of_llama_is_not(text, codes):
    assert found(text) == codes


@pytest.mark.parametrize(
    "tag",
    [
        "<br>", "<br/>", "<BR />", "<p>", "</div>", '<a href="https://example.com/?a=b">', "<img src=x alt='y z'>",
        "<span class=red>", "</SPAN>", "<h1>", "<!-- c -->", "<!DOCTYPE html>", "<td\ncolspan=2>", "<b>", "<em>",
    ],
)  # fmt: skip
def test_a_tag_of_html_is_named(tag):
    fault = only(f"利多{tag}消息")
    assert (fault.code, fault.position) == ("html_tag", 2)


def test_a_long_tag_is_shown_shortened():
    fault = only(f'<a href="{"x" * 500}">')
    assert len(fault.message) < 150 and "…" in fault.message


@pytest.mark.parametrize(
    ("entity", "meaning"),
    [("&amp;", "&"), ("&lt;", "<"), ("&#39;", "'"), ("&#x4E2D;", "中"), ("&hellip;", "…"), ("&nbsp;", r"\xa0")],
)
def test_an_entity_of_html_is_named_with_what_it_stands_for(entity, meaning):
    fault = only(f"利多{entity}消息")
    assert (fault.code, fault.position) == ("html_entity", 2)
    assert entity in fault.message and meaning in fault.hint


@pytest.mark.parametrize("text", ["&foo;", "AT&T;", "&amp", "& amp;", "&#;", "&#0;", "&#xD800;", "&#1114112;", "a&b;"])
def test_what_only_looks_like_an_entity_does_not_alarm(text):
    assert found(text) == {}


# Wrong encodings.

SENTENCES = {
    "zh-TW": "中央銀行宣布調升重貼現率半碼，市場普遍認為影響有限，股市反應平淡。",
    "zh-CN": "今天天气很好，我们一起去公园散步，然后去吃火锅吧！",
    "ja": "今日は天気がいいので、公園へ散歩に行きましょう。とても楽しいです。",
    "mixed": "AI伺服器需求強勁，台積電（TSMC）第3季EPS達13.94元，創新高。",
}
EUROPEAN = {
    "fr": "Déjà vu à l’été, où Noël a goûté ça… Château, pâté, forêt !",
    "de": "Die Größe der Straße für schöne Übungen ist außergewöhnlich süß",
    "es": "Mañana será otro día, señor Muñoz, ¡qué corazón!",
    "ru": "Сегодня очень хорошая погода, сказал он.",
    "quote": "It’s what the board’s chairman said.",
    "zh": SENTENCES["zh-TW"],
}


def as_cp1252(text: str) -> str:
    """UTF-8 bytes as a browser shows them: cp1252, and Latin-1 where cp1252 has no character."""
    return "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in text.encode())


@pytest.mark.parametrize("text", EUROPEAN.values(), ids=EUROPEAN)
@pytest.mark.parametrize("misread", [as_cp1252, lambda text: text.encode().decode("latin-1")], ids=["cp1252", "latin1"])
def test_utf8_read_as_cp1252_or_latin1_is_named_and_shown_repaired_in_full(text, misread):
    (fault,) = (fault for fault in faults_in(misread(text)) if fault.code == "mojibake")
    assert "cp1252" in fault.message
    assert describe(text if len(text) <= 40 else text[:39] + "…") in fault.hint
    first = next(position for position, char in enumerate(text) if ord(char) > 127)
    assert fault.position == first
    assert mended(misread(text)) == (misread(text), []), "its control characters are bytes that the repair needs"


@pytest.mark.parametrize("errors", ["replace", "ignore"])
@pytest.mark.parametrize(("codec", "name"), [("gb18030", "GBK"), ("gbk", "GBK"), ("cp950", "Big5"), ("big5", "Big5")])
@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_chinese_and_japanese_utf8_read_as_gbk_or_big5_is_named_though_bytes_were_lost(text, codec, name, errors):
    misread = text.encode().decode(codec, errors)
    (fault,) = (fault for fault in faults_in(misread) if fault.code == "mojibake")
    assert name in fault.message
    shown = re.search("'(.*)'", fault.hint).group(1)
    left = {char for char in shown if char.isalpha()}
    if name == "GBK":  # Big5 keeps too little of it
        assert len(left & set(text)) >= max(5, 0.7 * len(left)), "the hint shows the text, as far as it is left"


@pytest.mark.parametrize("text", ["It鈥檚 fine", "the board鈥檚", "鈥淗ello", "done鈥? he"])
def test_an_english_quotation_mark_read_as_gbk_is_named(text):
    assert found(text) == {"mojibake": text.index("鈥")}


@pytest.mark.parametrize(
    ("text", "position"), [("營收锟斤拷成長", 2), ("錕斤拷", 0), ("內容烫烫烫烫", 2), ("燙燙燙", 0)]
)
def test_what_failed_conversions_leave_is_named(text, position):
    assert found(text) == {"mojibake": position}


RARE_IN_NAMES = (
    "璐姗娅瑜绮瑾璇婷娜婕妍娟媛珊琪琳瑶璟莹萱蕊薇馨馥岚淇淑涵澜濮瀚楠榕槿榆桐椿炜烨焕煜熠玮珂珞晗昕晖宥宸寰鎮鋼錄錢鍾"
)


def test_lists_of_rare_given_names_are_no_mojibake():
    """The ordinary texts that come nearest to UTF-8 read as GBK or Big5."""
    choice = random.Random(0)
    for _ in range(5000):
        names = ["".join(choice.choices(RARE_IN_NAMES, k=choice.choice([1, 2]))) for _ in range(choice.randint(2, 8))]
        text = choice.choice(["、", "，", "和", " "]).join(names) + choice.choice(["", "。", "都笑了"])
        assert found(text) == {}, text


# Scripts.


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("臺灣積體電路製造公司", "traditional"),
        ("台湾积体电路制造公司", "simplified"),
        ("這是繁體，这是简体", "mixed"),
        ("這是繁體，裡面夾了一個简字", "traditional"),
        ("这是简体，里面夹了一个這字", "simplified"),
        ("中文", None),
        ("個个", None),
        ("着勐囧妳", None),
        ("EPS 3.21", None),
        ("", None),
        ("日経平均株価は反発、輸出関連株に買いが入った", None),
        ("이것은 한국어 문장입니다", None),
        ("😀\ud83d", None),
    ],
)
def test_the_script_of_a_text_is_told_by_characters_of_one_standard(text, script):
    assert script_of(text) == script


def test_script_counts_count_every_occurrence():
    assert script_counts("這這个 a 中😀") == (2, 1)


@pytest.mark.parametrize("name", ["zh-TW", "zh-HK"])
def test_traditional_sentences_are_traditional(name):
    assert script_of(ORDINARY[name]) == "traditional"


# Labels and values as they are shown.


@pytest.mark.parametrize(
    ("value", "label", "phrase"),
    [
        (" 利多", "利多", "stray spaces"),
        ("利 多", "利多", "stray spaces"),
        ("利多\u3000", "利多", "stray spaces"),
        ("ｐｏｓｉｔｉｖｅ", "positive", "full-width forms"),
        ("Ａ＋", "A+", "full-width forms"),
        ("a+", "ａ＋", "full-width forms"),
        ("POSITIVE", "positive", "different case"),
        ("Posi\u200btive", "Positive", "invisible characters (U+200B ZERO WIDTH SPACE)"),
        ("利多\ufeff\x07", "利多", "invisible characters (U+FEFF ZERO WIDTH NO-BREAK SPACE, U+0007 CONTROL CHARACTER)"),
        ("利\uf9dd", "利利", "other Unicode forms (U+F9DD CJK COMPATIBILITY IDEOGRAPH-F9DD)"),
        ("⼈", "人", "other Unicode forms (U+2F08 KANGXI RADICAL MAN)"),
        ("e\u0301", "é", "other Unicode forms"),
        ("ﬁt", "fit", "other Unicode forms"),
        (" Ｐositive", "positive", "full-width forms and different case and stray spaces"),
        ("\u200bneutral ", "neutral", "invisible characters (U+200B ZERO WIDTH SPACE) and stray spaces"),
        ("positive", "positive", None),
        ("positiv", "positive", None),
        ("利空 ", "利多", None),
        ("", "利多", None),
    ],
)
def test_the_difference_of_a_value_that_looks_like_a_label_is_named(value, label, phrase):
    assert label_difference(value, label) == phrase


@given(st.data(), st.sampled_from(["positive", "利多", "not positive", "A+", "中性 (neutral)"]))
def test_unseen_characters_spaces_width_and_case_in_any_mixture_are_named(data, label):
    wide = {char: chr(ord(char) + 0xFEE0) for char in label if "!" <= char <= "~"}
    forms = [st.sampled_from([char, char.upper(), wide.get(char, char)]) for char in label]
    noise = st.sampled_from(["", "", "\u200b", " ", "\u3000", "\x07", "\xad", "\ufeff"])
    value = "".join(data.draw(form) + data.draw(noise) for form in forms)
    phrase = label_difference(value, label)
    assert (phrase is None) == (value == label)
    if phrase and any(char in value for char in "\u200b\x07\xad\ufeff"):
        assert "invisible characters (U+" in phrase
    assert label_difference(value + "不", label) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Posi\u200btive", r"'Posi\u200btive'"),
        ("利多\u3000", r"'利多\u3000'"),
        ("a\tb\n", r"'a\tb\n'"),
        ("\0\x85", r"'\x00\x85'"),
        ("ㅤ\u2800❤\ufe0f", r"'\u3164\u2800❤\ufe0f'"),
        ("\ud83d", r"'\ud83d'"),
        ("葛\U000e0100", r"'葛\U000e0100'"),
        ("利多", "'利多'"),
    ],
)
def test_a_value_is_shown_with_everything_unseen_as_an_escape(text, shown):
    assert describe(text) == shown


@given(nasty)
def test_a_shown_value_is_printable_ends_on_one_line_and_can_be_encoded(text):
    shown = describe(text)
    assert shown.isprintable()
    assert shown.encode()


# Published data sets.


def strings(value: object) -> list[str]:
    """Every text inside a JSON value."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for one in inner for text in strings(one)]


def shared_texts() -> dict[str, list[str]]:
    """Folder -> its texts, one for each value that a person wrote."""
    texts = {
        "en_finentity": [row["content"] for row in shared_json("en_finentity", "FinEntity.json")],
        "zhtw_drcd_qa": strings(shared_json("zhtw_drcd_qa", "DRCD_dev.json")),
        "zh_dpo_llamafactory": strings(shared_json("zh_dpo_llamafactory", "dpo_zh_demo.json")),
        "zh_thucnews_title_topic": [row[0] for row in shared_rows("zh_thucnews_title_topic", "dev.txt")],
        "zh_csl_title_generation": [t for row in shared_rows("zh_csl_title_generation", "dev.tsv") for t in row[1:]],
        "zh_phone_absa_3line": [row[0] for row in shared_rows("zh_phone_absa_3line", "phone.train.txt")],
        "zh_asap_aspect_rating": [],
        "zh_weibo_ner": [],
    }
    for path in sorted((SHARED / "zh_asap_aspect_rating").glob("*.csv")):
        with path.open(encoding="utf-8-sig", newline="") as stream:
            texts["zh_asap_aspect_rating"] += [row["reviewbody"] for row in csv.DictReader(stream)]
    for path in sorted((SHARED / "zh_weibo_ner").glob("weiboNER*")):
        sentences = path.read_bytes().decode("utf-8", "surrogatepass").split("\n\n")
        lines = [[line.split("\t")[0] for line in sentence.split("\n")] for sentence in sentences]
        end = 1 if "2nd" in path.name else None  # there a digit follows each character
        texts["zh_weibo_ner"] += ["".join(cell[:end] for cell in cells) for cells in lines]
    return texts


def shared_json(folder: str, name: str) -> object:
    return json.loads((SHARED / folder / name).read_text(encoding="utf-8"))


def shared_rows(folder: str, name: str) -> list[list[str]]:
    return [line.split("\t") for line in (SHARED / folder / name).read_text(encoding="utf-8").split("\n") if line]


def published_count(folder: str, what: str) -> int:
    """How many texts of a data set have a defect, as its META.md says."""
    text = (SHARED / folder / "META.md").read_text(encoding="utf-8")
    return int(re.search(rf"{re.escape(what)}: (\d+)", text).group(1))


@with_shared_data
def test_no_published_text_is_taken_for_mojibake():
    texts = shared_texts()
    assert len(texts) == 8 and sum(map(len, texts.values())) > 20_000
    assert [text for rows in texts.values() for text in rows if "mojibake" in found(text)] == []


@with_shared_data
def test_published_texts_are_recognised_once_they_are_read_in_the_wrong_encoding():
    texts = shared_texts()
    chinese = [text for name in texts if name.startswith("zh") for text in texts[name] if script_of(text)]
    long = [text for text in chinese if len(re.findall("[一-龥]", text)) >= 15][::7]
    assert len(long) > 1000
    for codec, share in (("gb18030", 0.99), ("cp950", 0.8)):
        misread = [text.encode("utf-8", "replace").decode(codec, "replace") for text in long]
        assert sum("mojibake" in found(text) for text in misread) >= share * len(long), codec


@with_shared_data
@pytest.mark.parametrize(
    "folder", ["zh_thucnews_title_topic", "en_finentity", "zhtw_drcd_qa", "zh_csl_title_generation"]
)
def test_replacement_characters_controls_and_markup_are_found_as_often_as_published(folder):
    codes = [found(text).keys() for text in shared_texts()[folder]]
    assert sum("replacement_character" in row for row in codes) == published_count(folder, "with U+FFFD")
    assert sum(bool({"html_entity", "html_tag"} & row) for row in codes) == published_count(
        folder, "with HTML entities/tags"
    )
    assert sum("control_character" in row for row in codes) == published_count(folder, "control characters (C0/C1)")


@with_shared_data
def test_emoji_of_weibo_that_stand_as_two_halves_are_joined():
    broken = [text for text in shared_texts()["zh_weibo_ner"] if "lone_surrogate" in found(text)]
    assert broken
    for text in broken:
        clean, codes = mended(text)
        assert "lone_surrogate" in codes and clean.encode() and "lone_surrogate" not in found(clean)


@with_shared_data
def test_traditional_and_simplified_data_sets_are_told_apart():
    texts = shared_texts()
    drcd = shared_json("zhtw_drcd_qa", "DRCD_dev.json")
    contexts = [part["context"] for article in drcd["data"] for part in article["paragraphs"]]
    assert sum(script_of(text) == "traditional" for text in contexts) >= 0.99 * len(contexts) > 100
    for folder in ("zh_thucnews_title_topic", "zh_csl_title_generation", "zh_phone_absa_3line"):
        decided = [script for text in texts[folder] if (script := script_of(text))]
        assert decided.count("simplified") >= 0.99 * len(decided) > 1000
    assert {script_of(text) for text in texts["en_finentity"]} == {None}
