"""Whatever bytes a raw file holds, create, validate, fix and convert end with a documented exit code, no traceback."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from task_folder import BUNDLE, jsonl, make_task, news, write

LEGAL = {0, 2, 3, 4}  # 1 is a bug, 5 needs a model
SETTINGS = settings(max_examples=400, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
cells = st.one_of(words, st.sampled_from(["good", "bad", "Good ", "1", "", "一則新聞", '"', "a,b", "\ufeff", "=1+1"]))
values = st.one_of(cells, st.none(), st.integers(), st.floats(), st.booleans(), st.lists(cells, max_size=2))
encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "big5", "gb18030", "latin-1"])
names = st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt", "a.xlsx", "a.parquet", "a"])


@st.composite
def tables(draw) -> bytes:
    """Delimited text: rows of any width, quotes where they fall, any line end, any encoding, then damage."""
    delimiter, end = draw(st.sampled_from([",", "\t", ";"])), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    row = st.one_of(st.lists(cells, min_size=1, max_size=4), st.tuples(words, st.sampled_from(["good", "bad"])))
    rows = draw(st.lists(row, max_size=8))
    lines = [delimiter.join(["title", "mood"]), *(delimiter.join(row) for row in rows)]
    return damaged(draw, end.join(lines).encode(draw(encodings), "replace"))


@st.composite
def json_texts(draw) -> bytes:
    """JSON lines, an array, or pretty-printed objects, then damage."""
    keys = st.sampled_from(["title", "mood", "other"])
    rows = draw(st.lists(st.one_of(st.dictionaries(keys, values), values), max_size=6))
    form = draw(st.sampled_from(["lines", "array", "pretty"]))
    if form == "array":
        text = json.dumps(rows, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    else:
        indent = 2 if form == "pretty" else None
        text = "\n".join(json.dumps(row, ensure_ascii=draw(st.booleans()), indent=indent) for row in rows)
    return damaged(draw, text.encode("utf-8", "surrogatepass"))


def damaged(draw, content: bytes) -> bytes:
    """The content as it is, cut off, or with a few bytes changed."""
    kind = draw(st.sampled_from(["whole", "whole", "cut", "changed", "padded"]))
    if kind == "cut" and content:
        return content[: draw(st.integers(0, len(content)))]
    if kind == "padded":
        return content + b"\0" * draw(st.integers(1, 5))
    if kind == "changed" and content:
        at = draw(st.integers(0, len(content) - 1))
        return content[:at] + draw(st.binary(max_size=3)) + content[at + draw(st.integers(0, 3)) :]
    return content


contents = st.one_of(st.binary(max_size=200), tables(), json_texts())


def script(name: str):
    """A script of the bundle as a module, its own folder first on the path as when it is run."""
    path = BUNDLE / "scripts" / name
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem.lstrip("0123456789_") + "_fuzzed", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scripts():
    kept = list(sys.path)
    yield {name: script(name) for name in ("create_task.py", "task/01_validate_data.py", "task/02_convert_format.py")}
    sys.path[:] = kept


def run(module, *flags: str) -> tuple[int, str]:
    """Exit code and what was printed, errors of the script itself included."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = module.main([*flags])
    return int(code), out.getvalue()


@SETTINGS
@given(name=names, content=contents)
@example(name="a.csv", content=b"")
@example(name="a.json", content=b"[")
@example(name="a.jsonl", content=b'{"title": "\\ud83d", "mood": "good"}\n')
@example(name="a.xlsx", content=b"PK\x03\x04")
@example(name="a.parquet", content=b"PAR1PAR1")
def test_validate_fix_and_convert_survive_any_raw_file(scripts, name, content):
    with tempfile.TemporaryDirectory() as folder:
        task = make_task(Path(folder) / "task", {name: content, "ok.jsonl": jsonl(*news(40))})
        raw = task.hashes("data/raw")
        for module, *flags in (
            ("task/01_validate_data.py", "--near-duplicates", "--fix", "--decide"),
            ("task/02_convert_format.py",),
        ):
            code, printed = run(scripts[module], "--task-dir", str(task.folder), *flags)
            assert code in LEGAL and "Traceback" not in printed, printed
        assert raw.items() <= task.hashes("data/raw").items()


@SETTINGS
@given(name=names, content=contents)
@example(name="a.txt", content="一則新聞\n兩則新聞\n".encode())
def test_create_survives_any_raw_file_and_what_it_creates_can_be_read(scripts, name, content):
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder) / name, content)
        flags = ("--name", "fuzz", "--data", str(source), "--tasks-dir", str(Path(folder) / "tasks"))
        code, printed = run(scripts["create_task.py"], *flags)
        assert code in LEGAL and "Traceback" not in printed, printed
        assert source.read_bytes() == content
        if code == 0:
            task = Path(folder) / "tasks" / "fuzz"
            code, printed = run(scripts["task/01_validate_data.py"], "--task-dir", str(task))
            assert code in {0, 3} and "Traceback" not in printed, printed
            shutil.rmtree(task)
