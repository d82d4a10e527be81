"""report.html and report.md: complete, inert, self-contained, and alive in a real browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts" / "task"))

from tasklib import report
from tasklib.gate import shortfalls
from tasklib.metrics import Comparison, Gate, Interval, Metrics, Prediction, Primary
from tasklib.schema import DataSpec, TaskDefinition
from tasklib.task_types import classification
from tasklib.texts import REPORT

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ZH = {"positive": "正面", "negative": "負面", "neutral": "中性"}
UNDEFINED = Interval(value=None, ci_low=None, ci_high=None)
HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<b>bold</b> & &amp; \"double\" 'single'",
    "<img src=x onerror='window.hacked = 1'>",
    '" onmouseover="window.hacked = 1" x=\'',
    "{{ 7 * 7 }} {% raw %} ${window.hacked = 1}",
    "[click](javascript:window.hacked=1) ![x](https://example.com/x.png) | `code` *star* _under_",
]

Row = tuple[str, str, str | None]  # text, gold, predicted


def definition(labels: dict[str, str] | None = None, language: str = "zh-TW") -> TaskDefinition:
    return TaskDefinition(
        schema_version=1,
        name="demo",
        language=language,
        task=classification.Options(type="classification", labels=labels or ZH),
        data=DataSpec(files={"all": ["data/raw/news.csv"]}, fields={"text": "text", "label": "label"}),
    )


def measured(task: TaskDefinition, rows: Sequence[Row], run: str = "baseline", **changes) -> Metrics:
    """Metrics with the true per-class numbers of `rows`; the intervals are made up, each number unlike the rest."""
    counts = classification.count([gold for _, gold, _ in rows], [p for _, _, p in rows], task.task).sum(0)
    values = {
        "macro_f1": Interval(value=0.7111, ci_low=0.6222, ci_high=0.8333),
        "accuracy": Interval(value=0.7444, ci_low=0.6558, ci_high=0.8666),
        "macro_recall": UNDEFINED,
    }
    defaults = {
        "split": "test",
        "decoding": "score",
        "n_rows": len(rows),
        "rows_sha256": "a1" * 32,
        "identity": "b2" * 32,
        "primary": Primary(name="macro_f1", **values["macro_f1"].model_dump()),
        "metrics": values,
        "per_class": classification.per_class(counts, task.task),
    }
    return Metrics(run=run, **{**defaults, **changes})


def baseline(task: TaskDefinition, value: float, low: float, high: float) -> Metrics:
    interval = Interval(value=value, ci_low=low, ci_high=high)
    primary = Primary(name="macro_f1", **interval.model_dump())
    return measured(task, [], primary=primary, metrics={"macro_f1": interval})


def write(folder: Path, task: TaskDefinition, rows: Sequence[Row], metrics: Metrics, scored: bool = True,
          baselines: dict[str, Metrics] | None = None, raw: str | None = None) -> tuple[str, str]:  # fmt: skip
    """Writes the reports of `rows`; row i is predicted with confidence 0.9 - i/1000. Returns (html, markdown)."""
    predictions, processed, others = [], [], len(task.task.labels) - 1
    for i, (text, gold, predicted) in enumerate(rows):
        sure = 0.9 - i / 1000
        chances = {label: sure if label == predicted else (1 - sure) / others for label in task.task.labels}
        answer = {"gold": gold, "prediction": predicted, "raw_output": raw, "parsed": predicted is not None}
        predictions.append(Prediction(id=f"row-{i}", probabilities=chances if scored else None, **answer))
        source = {"file": "data/raw/news.csv", "line": i + 2}
        record = {"text": text, "label": gold}
        processed.append({"id": f"row-{i}", "source": source, "record": record, "prompt": [], "completion": []})
    report.write(folder, task, metrics, predictions, processed, baselines or {})
    return tuple((folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))


def some_rows(n_wrong: int = 3) -> list[Row]:
    right = [
        ("營收創新高", "positive", "positive"),
        ("毛利率下滑", "negative", "negative"),
        ("召開股東會", "neutral", "neutral"),
    ]
    wrong = [(f"第 {i} 則", "neutral", "positive" if i % 3 else "negative") for i in range(n_wrong)]
    return right * 4 + wrong


class Page(HTMLParser):
    """What a browser's parser would make of the page: elements with attribute names, attributes, text, scripts."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements, self.attributes, self.texts, self.scripts, self.styles = [], [], [], [], []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += attrs
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        {"script": self.scripts, "style": self.styles}.get(self._inside, self.texts).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def visible_text_of_markdown(text: str) -> str:
    """The text that a reader of the rendered Markdown sees; raw HTML in it would be tags and is dropped."""
    return Page(MarkdownIt("gfm-like", {"linkify": False}).render(text)).text


@pytest.mark.parametrize("language", ["zh-TW", "en"])
def test_every_number_of_the_metrics_stands_in_both_files(tmp_path, language):
    task, rows = definition(language=language), some_rows()
    comparison = Comparison(against="zero_shot", metric="macro_f1", delta=0.1234, ci_low=-0.0456, ci_high=0.2789,
                            p_value=0.0371, verdict="not_distinguishable")  # fmt: skip
    gate = Gate(passed=False, target=0.8512, reasons=["macro_f1 0.711 < target 0.851", "not better than zero_shot"])
    metrics = measured(task, rows, comparisons=[comparison], gate=gate, warnings=["2 rows were cut"])
    baselines = {
        "majority": baseline(task, 0.1601, 0.1502, 0.1703),
        "zero_shot": baseline(task, 0.5877, 0.4966, 0.6855),
    }
    page, markdown = write(tmp_path, task, rows, metrics, baselines=baselines)
    words = REPORT[language]
    reasons = shortfalls(0.8512, task.evaluation.must_beat, metrics, language)
    assert len(reasons) == 4  # the target, two baselines that were not computed, one that was not beaten
    expected = ["0.711", "0.622", "0.833", "0.744 [0.656, 0.867]", "0.160 [0.150, 0.170]", "0.588 [0.497, 0.685]"]
    expected += ["+0.123 [−0.046, +0.279]", "0.037", "0.851", *reasons, "2 rows were cut", "a1" * 32, "b2" * 32]
    expected += [words[key] for key in ("undefined", "majority", "zero_shot", "not_distinguishable")]
    expected += [f"{value:.3f}" for row in metrics.per_class.values() for key, value in row.items() if key != "support"]
    for text in (Page(page).text, visible_text_of_markdown(markdown)):
        assert [item for item in expected if item not in text] == []


def test_the_confusion_matrix_counts_the_predictions(tmp_path):
    rows = [("a", "positive", "positive")] * 5 + [("b", "positive", "negative")] * 2 + [("c", "neutral", "neutral")] * 7
    task = definition()
    page, markdown = write(tmp_path, task, rows, measured(task, rows))
    assert "| positive（正面） | 5 | 2 | 0 |" in markdown
    assert "| negative（負面） | 0 | 0 | 0 |" in markdown
    assert "| neutral（中性） | 0 | 0 | 7 |" in markdown
    matrix = page[page.index('id="confusion"') :]
    assert re.findall(r'title="positive（正面） → [^"]*: (\d+) \((\d+) %\)"', matrix) == [
        ("5", "71"), ("2", "29"), ("0", "0")]  # fmt: skip
    assert 'value="unparsed"' not in page and REPORT["zh-TW"]["unparsed"] not in page + markdown


@pytest.mark.parametrize("language", ["zh-TW", "en"])
@pytest.mark.parametrize("outcome", ["passed", "failed", "neutral"])
def test_the_verdict_is_the_first_sentence_in_the_language_of_the_task(tmp_path, language, outcome):
    task, rows = definition(language=language), some_rows()
    gate = None if outcome == "neutral" else Gate(passed=outcome == "passed", target=0.7, reasons=["because"])
    page, markdown = write(tmp_path, task, rows, measured(task, rows, gate=gate))
    words = REPORT[language]
    sentence = words[f"verdict_{outcome}"].format(split=words["split"]["test"], n=len(rows), metric="macro_f1",
                                                  value="0.711", low="0.622", high="0.833")  # fmt: skip
    assert sentence in Page(page).text
    assert markdown.splitlines()[2] == f"**{sentence}**"
    assert f'<html lang="{language}">' in page
    reason = shortfalls(None, ["majority"], measured(task, rows), language)[0]
    assert (reason in page) == (reason in visible_text_of_markdown(markdown)) == (outcome == "failed")


def test_an_english_report_of_english_data_holds_no_chinese(tmp_path):
    task = definition({"yes": "yes", "no": "no"}, "en")
    rows = [("good", "yes", "yes"), ("bad", "no", "yes"), ("odd", "no", None)]
    metrics = measured(task, rows, gate=Gate(passed=False, target=0.9, reasons=["too low"]))
    page, markdown = write(tmp_path, task, rows, metrics, baselines={"majority": baseline(task, 0.3, 0.2, 0.4)})
    assert not re.search(r"[\u3000-\u9fff\uff00-\uffef]", page + markdown)


def test_the_best_system_is_marked_even_when_it_is_a_baseline(tmp_path):
    task, rows = definition(language="en"), some_rows()
    baselines = {"majority": baseline(task, 0.2, 0.1, 0.3), "tfidf_logreg": baseline(task, 0.9, 0.8, 0.95)}
    page, markdown = write(tmp_path, task, rows, measured(task, rows), baselines=baselines)
    assert re.findall(r"\| ([^|]*) ★ best \|", markdown) == ["TF-IDF + logistic regression"]
    assert re.findall(r'<th scope="row">([^<]*) <span class="pill best">', page) == ["TF-IDF + logistic regression"]


def test_a_comparison_without_baseline_metrics_is_shown_under_its_own_name(tmp_path):
    task, rows = definition(language="en"), some_rows()
    comparison = Comparison(against="exp-07", metric="macro_f1", delta=0.2, ci_low=0.1, ci_high=0.3, p_value=0.01,
                            verdict="better")  # fmt: skip
    page, markdown = write(tmp_path, task, rows, measured(task, rows, comparisons=[comparison]))
    assert "| exp-07 | undefined | +0.200 [+0.100, +0.300] | 0.010 | fine-tuned is better |" in markdown
    assert "exp-07" in Page(page).text


def test_hostile_texts_change_nothing_but_text(tmp_path):
    def pages(texts: Sequence[str], labels: dict[str, str]) -> tuple[str, str]:
        task, (first, second) = definition(labels, "en"), labels
        rows = [(text, first, second) for text in texts]
        gate = Gate(passed=False, target=0.9, reasons=[texts[0]])
        metrics = measured(task, rows, gate=gate, warnings=[texts[1]])
        return write(tmp_path, task, rows, metrics, scored=False, raw=texts[2])

    page, markdown = pages(HOSTILE, {HOSTILE[3]: "</option>&lt;", "<i>": "</td>"})
    harmless, harmless_markdown = pages(["x"] * len(HOSTILE), {"one": "1", "two": "2"})
    parsed, reference = Page(page), Page(harmless)
    assert parsed.elements == reference.elements
    assert parsed.scripts == reference.scripts and len(parsed.scripts) == 1
    assert [text for text in HOSTILE if " ".join(text.split()) not in parsed.text] == []
    rendered = [MarkdownIt("gfm-like", {"linkify": False}).render(text) for text in (markdown, harmless_markdown)]
    assert Page(rendered[0]).elements == Page(rendered[1]).elements
    assert [text for text in HOSTILE if text not in visible_text_of_markdown(markdown)] == []


def test_the_page_loads_nothing_from_anywhere(tmp_path):
    task, rows = definition(), some_rows()
    page, _ = write(tmp_path, task, rows, measured(task, rows), baselines={"majority": baseline(task, 0.2, 0.1, 0.3)})
    parsed = Page(page)
    loading = {"src", "srcset", "href", "xlink:href", "action", "formaction", "poster", "data", "background"}
    assert {name for name, _ in parsed.attributes} & loading == set()
    assert {"link", "iframe", "object", "embed", "base", "img"} & {tag for tag, _ in parsed.elements} == set()
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page)
    policies = [value for name, value in parsed.attributes if name == "content" and "default-src" in value]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]


def test_generated_answers_are_shown_where_there_are_no_probabilities(tmp_path):
    task = definition(language="en")
    rows = [("one", "positive", None), ("two", "negative", "positive"), ("three", "neutral", "neutral")]
    page, markdown = write(
        tmp_path, task, rows, measured(task, rows, decoding="generate"), scored=False, raw="I think so"
    )
    assert page.count("I think so") == 2
    assert "| row-0 (data/raw/news.csv:2) | one | positive (正面) | unparsed | I think so |" in markdown
    assert '<option value="unparsed">' in page
    assert "| positive (正面) | 0 | 0 | 0 | 1 |" in markdown
    assert REPORT["en"]["probability"] not in page + markdown
    assert 'class="chance"' not in page


def test_a_report_without_wrong_rows_says_so(tmp_path):
    task, rows = definition(), some_rows(n_wrong=0)
    page, markdown = write(tmp_path, task, rows, measured(task, rows))
    assert REPORT["zh-TW"]["no_errors"] in page and REPORT["zh-TW"]["no_errors"] in markdown
    assert 'id="filters"' not in page


def test_undefined_numbers_are_named_and_never_nan(tmp_path):
    task = definition(language="en")
    primary = Primary(name="macro_f1", value=None, ci_low=None, ci_high=None)
    gate = Gate(passed=False, target=0.5, reasons=["macro_f1 is undefined"])
    metrics = measured(task, [], primary=primary, metrics={"macro_f1": UNDEFINED, "accuracy": UNDEFINED}, gate=gate)
    page, markdown = write(tmp_path, task, [], metrics)
    sentence = "On 0 test rows, macro_f1 is undefined (gate: not passed)."
    assert sentence in Page(page).text and sentence in markdown
    assert "nan" not in (Page(page).text + markdown).casefold()


def test_wrong_rows_are_sorted_by_confidence_and_cut_with_a_word(tmp_path):
    task = definition()
    rows = [(f"text {i}", "neutral", "positive") for i in range(report.MAX_HTML_ROWS + 7)]
    page, markdown = write(tmp_path, task, rows[::-1], measured(task, rows))
    confidences = [float(value) for value in re.findall(r'<td class="confidence"[^>]*>([\d.]+)<', page)]
    assert len(confidences) == report.MAX_HTML_ROWS
    assert confidences == sorted(confidences, reverse=True)
    words = REPORT["zh-TW"]["more_errors"]
    assert words.format(shown=report.MAX_HTML_ROWS, total=len(rows)) in page
    assert words.format(shown=report.MAX_MARKDOWN_ROWS, total=len(rows)) in markdown
    assert markdown.count("(data/raw/news.csv:") == report.MAX_MARKDOWN_ROWS


def test_of_thirty_labels_a_wrong_row_shows_the_likeliest_with_gold_and_predicted(tmp_path):
    labels = {f"topic-{i:02d}": f"主題{i}" for i in range(30)}
    task = definition(labels)
    rows = [("長文" * 4000, "topic-29", "topic-03")]
    page, markdown = write(tmp_path, task, rows, measured(task, rows))
    bars = re.findall(r'<div class="chance"[^>]*><span>([^<]+)</span>', page)
    assert bars[0] == "topic-03" and "topic-29" in bars
    assert bars[-1] == REPORT["zh-TW"]["other_labels"].format(n=30 - len(bars) + 1)
    assert "長文" * 4000 in page
    assert "長文" * 4000 not in markdown and "…" in markdown
    assert page.count('<th scope="row">topic-') == 2 * 30


def test_rows_that_are_not_the_predicted_ones_are_refused(tmp_path):
    task = definition()
    prediction = Prediction(
        id="a", gold="neutral", prediction="neutral", raw_output=None, probabilities=None, parsed=True
    )
    row = {"id": "b", "source": {"file": "f", "line": 1}, "record": {"text": "t", "label": "neutral"}}
    with pytest.raises(ValueError, match="not the same rows"):
        report.write(tmp_path, task, measured(task, []), [prediction], [row], {})
    assert list(tmp_path.iterdir()) == []


LISTEN = """<script>
window.problems = [];
addEventListener("error", (event) => problems.push(event.message));
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => problems.push(event.violatedDirective));
</script>"""
DRIVE = """<script>
addEventListener("load", async () => {
  const pause = () => new Promise((resolve) => setTimeout(resolve, 50));
  const get = (id) => document.getElementById(id);
  const rows = () => Array.from(get("rows").rows).filter((row) => row.getClientRects().length > 0);
  const enter = (id, value) => {
    get(id).value = value;
    get(id).dispatchEvent(new Event("input", { bubbles: true }));
  };
  const seen = () => [rows().length, Number(get("shown").textContent)];
  const result = { texts: rows().map((row) => row.querySelector(".text").textContent), all: seen() };
  enter("search", "</Ｓcript");
  result.searched = seen();
  enter("search", "no such text");
  result.none = [...seen(), get("empty").hidden];
  enter("search", "");
  enter("gold", "=neutral");
  result.gold = seen();
  enter("predicted", "=negative");
  result.both = seen();
  get("filters").querySelector("button[type=reset]").click();
  await pause();
  result.reset = seen();
  document.querySelector("#confusion button[data-gold='=positive'][data-predicted='=negative']").click();
  await pause();
  result.cell = [...seen(), get("gold").value, get("predicted").value];
  result.too_wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  result.hacked = window.hacked === undefined ? null : window.hacked;
  result.problems = window.problems;
  document.body.innerHTML = "<pre id='result'></pre>";
  get("result").textContent = JSON.stringify(result);
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a real browser: neither chromium nor google-chrome is on PATH")
@pytest.mark.parametrize("width", [1200, 500])
def test_the_filters_work_in_a_real_browser_opened_from_a_file(tmp_path, width):
    task = definition()
    rows = [(text, "positive", "negative") for text in HOSTILE] + [("無斷點" + "x" * 3000, "neutral", "negative")]
    rows += [(f"普通的第 {i} 列", "neutral", "positive") for i in range(5)] + [("對", "neutral", "neutral")]
    folder = tmp_path / "報告 1"
    page, _ = write(folder, task, rows, measured(task, rows), baselines={"majority": baseline(task, 0.2, 0.1, 0.3)})
    driven = folder / "driven.html"
    driven.write_text(page.replace("<head>", "<head>" + LISTEN).replace("</body>", DRIVE + "</body>"), encoding="utf-8")
    result = result_of_browser(driven, tmp_path / "profile", width)
    assert result["problems"] == [] and result["hacked"] is None
    assert result["texts"][: len(HOSTILE)] == HOSTILE
    assert result["all"] == [12, 12]
    assert result["searched"] == [1, 1]
    assert result["none"] == [0, 0, False]
    assert result["gold"] == [6, 6]
    assert result["both"] == [1, 1]
    assert result["reset"] == [12, 12]
    assert result["cell"] == [6, 6, "=positive", "=negative"]
    assert not result["too_wide"]


def result_of_browser(page: Path, profile: Path, width: int) -> dict:
    """What the script at the end of the page left in #result."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={profile}", f"--window-size={width},900", "--virtual-time-budget=10000", "--dump-dom",
               page.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the page never finished: {done.stderr[-2000:]}"
    return json.loads(html.unescape(found.group(1)))
