"""Writes the data files of evals.json into evals/files/, and says which faults were planted in them.

    uv run python evals/make_files.py

Everything is made of the project's own examples (templates/examples/), so that the files may be shared.
"""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).resolve().parent.parent
EXAMPLES = BUNDLE / "templates" / "examples"
FILES = Path(__file__).resolve().parent / "files"
CHINESE = {"positive": "利多", "negative": "利空", "neutral": "中性"}
Headline = tuple[str, str]

# what a careful reader finds; lines count from 1, as an editor shows them
MISTYPED_LABEL = "利孔"
N_WITHOUT_LABEL = 3
N_LEAKED = 24
ORPHAN_TAG_SENTENCES = (12, 47)
BROKEN_LINE_SENTENCE = 30
SAME_ON_BOTH_SIDES, EMPTY_SIDE, SWAPPED = 7, 19, (12, 33)  # rows of replies.jsonl


def headlines() -> list[Headline]:
    """The example's headlines with their labels, in an order of their own."""
    with (EXAMPLES / "financial-sentiment" / "news.csv").open(encoding="utf-8", newline="") as stream:
        rows = [(row["標題"], row["情感"]) for row in csv.DictReader(stream)]
    random.Random(2026).shuffle(rows)
    return rows


def of_each_label(rows: list[Headline], n: int) -> list[Headline]:
    """The first `n` rows of every label, in the order they had."""
    kept = {label: [row for row in rows if row[1] == label][:n] for label in CHINESE}
    return [row for row in rows if row in kept[row[1]]]


def messy_sheet() -> bytes:
    """Big5 with a title above the header, stray spaces, a mistyped label, duplicates and rows without a label."""
    rows = [
        [text, CHINESE[label], ""] for text, label in of_each_label(headlines(), 70) if _fits(text) and "," not in text
    ]
    for n, (index, label) in enumerate([(5, MISTYPED_LABEL), (40, MISTYPED_LABEL), (77, "利多　"), (90, " 中性")]):
        rows[index][1] = label
        rows[index][2] = "待確認" if n == 0 else ""
    for index in (21, 60, 100)[:N_WITHOUT_LABEL]:
        rows[index][1] = ""
    rows += [list(rows[index]) for index in (3, 17, 55)]  # exact duplicates
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["2026 年第三季財經標題（整理：小陳）", "", "", ""])
    writer.writerow(["編號", "標題", "情感", "備註"])
    writer.writerows([number, *row] for number, row in enumerate(rows, start=1))
    return out.getvalue().encode("cp950")


def _fits(text: str) -> bool:
    try:
        text.encode("cp950")
    except UnicodeEncodeError:
        return False
    return True


def bio_sentences() -> list[list[str]]:
    """The NER example as `character tag` lines, with two I- tags that nothing begins and one line that lost its tag."""
    sentences = []
    with (EXAMPLES / "ner" / "news.jsonl").open(encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            tags = ["O"] * len(row["text"])
            for span in row["entities"]:
                tags[span["start"] : span["end"]] = [
                    "B-" + span["type"],
                    *["I-" + span["type"]] * (span["end"] - span["start"] - 1),
                ]
            sentences.append([f"{c} {tag}" for c, tag in zip(row["text"], tags, strict=True) if not c.isspace()])
    for index in ORPHAN_TAG_SENTENCES:
        sentence = sentences[index]
        begin = next(n for n, line in enumerate(sentence) if " B-" in line)
        sentence[begin] = sentence[begin].replace(" B-", " I-")
    broken = sentences[BROKEN_LINE_SENTENCE]
    broken[4] = broken[4].split(" ")[0]
    return sentences


def bio_lines() -> dict[str, list[int]]:
    """Line numbers of the faults in people.bio."""
    found: dict[str, list[int]] = {"orphan": [], "broken": []}
    line = 0
    for index, sentence in enumerate(bio_sentences()):
        for n, text in enumerate(sentence, start=1):
            previous = sentence[n - 2] if n > 1 else "x O"
            if index in ORPHAN_TAG_SENTENCES and " I-" in text and previous.endswith(" O"):
                found["orphan"].append(line + n)
            if " " not in text:
                found["broken"].append(line + n)
        line += len(sentence) + 1
    return found


def reply_pairs() -> list[dict[str, Any]]:
    """The preference example with one row that prefers nothing, one empty side and one pair turned around."""
    with (EXAMPLES / "preference" / "replies.jsonl").open(encoding="utf-8") as stream:
        rows = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in map(json.loads, stream)]
    rows[SAME_ON_BOTH_SIDES - 1]["rejected"] = rows[SAME_ON_BOTH_SIDES - 1]["chosen"]
    rows[EMPTY_SIDE - 1]["rejected"] = ""
    first, second = (number - 1 for number in SWAPPED)
    pair = rows[first]
    rows[second] = {"prompt": pair["prompt"], "chosen": pair["rejected"], "rejected": pair["chosen"]}
    return rows


def leaked_split() -> tuple[list[Headline], list[Headline]]:
    """Train and test of which `N_LEAKED` test rows stand in train too."""
    rows = of_each_label(headlines(), 80)
    test = rows[:60]
    train = rows[60:] + test[:N_LEAKED]
    random.Random(7).shuffle(train)
    return train, test


def sheet(rows: list[Headline], names: tuple[str, str]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([names, *rows])
    return out.getvalue().encode()


def contents() -> dict[str, bytes]:
    """File name -> bytes."""
    train, test = leaked_split()
    new = [(text, CHINESE[label]) for text, label in of_each_label(headlines(), 150)[240:300]]
    pairs = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in reply_pairs())
    return {
        "財經標題.csv": messy_sheet(),
        "people.bio": "\n\n".join("\n".join(lines) for lines in bio_sentences()).encode() + b"\n",
        "replies.jsonl": pairs.encode(),
        "train.csv": sheet(train, ("headline", "sentiment")),
        "test.csv": sheet(test, ("headline", "sentiment")),
        "新標題.csv": sheet(new, ("標題", "情感")),
    }


def main() -> int:
    FILES.mkdir(exist_ok=True)
    for name, content in contents().items():
        (FILES / name).write_bytes(content)
        print(f"{len(content):8,} {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
