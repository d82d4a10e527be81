"""The bundled examples of entity sentiment and stance: original rows that validate without a finding, true pages."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tasklib import schema
from tasklib.documents import Document
from tasklib.reading.records import read_rows
from tasklib.schema import FileSpec

FOLDER = Path(__file__).resolve().parent.parent / "templates/examples"
FILES = {
    "entity-sentiment": "company_news.csv",
    "entity-sentiment-pairs": "reviews.jsonl",
    "stance": "comments.csv",
}


@pytest.fixture(params=FILES)
def example(request):
    """(definition, raw rows, page)"""
    folder = FOLDER / request.param
    answers = yaml.safe_load((folder / "answers.yaml").read_text(encoding="utf-8"))
    answers.pop("baseline")
    definition = schema.check_definition(Document("answers.yaml", {"schema_version": 1, **answers}, {}))
    path = folder / FILES[request.param]
    rows = list(read_rows(path, path.name, FileSpec(path=path.name)))
    return definition, rows, (folder / "README.md").read_text(encoding="utf-8")


def records(definition, rows):
    for row in rows:
        values = {role: row.values[column] for role, column in definition.data.fields.items()}
        record, faults = definition.task_type.read_record(values, definition.task)
        assert faults == []
        yield record


def test_every_row_is_read_and_no_two_are_the_same(example):
    definition, rows, _ = example
    found = list(records(definition, rows))
    assert len({definition.task_type.text_of(record) for record in found}) == len(found) >= 60
    for record in found:
        definition.task_type.text_of(record).encode("big5")  # Simplified characters are not in Big5


def test_the_page_gives_the_true_counts(example):
    definition, rows, page = example
    found = list(records(definition, rows))
    if definition.task.type == "entity_sentiment_pairs":
        counts = Counter(pair["sentiment"] for record in found for pair in record.pairs)
    else:
        counts = Counter(definition.task_type.gold(record) for record in found)
    assert str(len(found)) in page
    for label, n in counts.items():
        assert f"| `{label}` | {n} |" in page


def test_every_target_has_every_stance():
    with (FOLDER / "stance/comments.csv").open(encoding="utf-8", newline="") as stream:
        seen = {(row["議題"], row["立場"]) for row in csv.DictReader(stream)}
    assert len(seen) == 3 * len({target for target, _ in seen}) == 18


def test_one_headline_is_asked_about_several_companies_and_some_reviews_judge_nothing():
    with (FOLDER / "entity-sentiment/company_news.csv").open(encoding="utf-8", newline="") as stream:
        per_text = Counter(row["新聞"] for row in csv.DictReader(stream))
    assert sum(n > 1 for n in per_text.values()) >= 15
    lines = (FOLDER / "entity-sentiment-pairs/reviews.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(not json.loads(line)["對象"] for line in lines) >= 3
