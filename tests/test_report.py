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

import every_type
from tasklib.schema import DataSpec, EvaluationSpec, TaskDefinition
from tasklib.scoring import evaluation, report, report_facts, row_scores, shown
from tasklib.scoring.gate import shortfalls
from tasklib.scoring.metrics import (
    CalibrationBin,
    Comparison,
    Gate,
    Interval,
    Metrics,
    Prediction,
    Primary,
    Seeds,
    Slice,
)
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
        evaluation=EvaluationSpec(n_few_shot=6, must_beat=["majority", "tfidf_logreg", "zero_shot"]),
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


def baseline(task: TaskDefinition, value: float, low: float, high: float, run: str = "baseline") -> Metrics:
    interval = Interval(value=value, ci_low=low, ci_high=high)
    primary = Primary(name="macro_f1", **interval.model_dump())
    return measured(task, [], run, primary=primary, metrics={"macro_f1": interval})


def compared(against: str, delta: float | None = 0.1234, **changes) -> Comparison:
    """A comparison whose numbers are unlike one another; with delta=None an undefined one."""
    defaults = {"ci_low": -0.0456, "ci_high": 0.2789, "p_value": 0.0371, "p_value_holm": 0.1113}
    if delta is None:
        defaults = dict.fromkeys(defaults)
    defaults |= {"mcnemar_p_value": 0.0625, "verdict": "not_distinguishable"}
    return Comparison(against=against, metric="macro_f1", delta=delta, **{**defaults, **changes})


def everything(task: TaskDefinition, rows: Sequence[Row], source: str = "data/raw/b.csv", run: str = "baseline"):
    """Metrics with every part that a report can show, and the baselines that go with them."""
    found = measured(task, rows, run)
    first = next(iter(task.task.labels))
    per_class = {label: dict(values) for label, values in found.per_class.items()}
    for i, values in enumerate(per_class.values()):
        for j, name in enumerate(("precision", "recall", "f1")):
            values |= {
                name: 0.5,
                f"{name}_ci_low": 0.2 + 0.0307 * i + j / 97,
                f"{name}_ci_high": 0.6 + 0.0211 * i + j / 89,
            }
    intervals = found.metrics | {
        "mcc": Interval(value=-0.1119, ci_low=-0.2228, ci_high=0.0337),
        "ece": Interval(value=0.0773, ci_low=0.0512, ci_high=0.1044),
        "brier": Interval(value=0.3141, ci_low=0.2718, ci_high=0.3579),
    }
    slices = [
        ("length", "4-12", 30, "macro_f1", 0.6606),
        ("length", "13-40", 31, "macro_f1", 0.7707),
        ("label", first, 21, "recall", 0.8119),
        ("source", source, 40, "macro_f1", 0.6919),
        ("target", "T1", 22, "macro_f1", 0.6443),
        ("script", "traditional", 57, "macro_f1", 0.7221),
        ("script", "simplified", 4, "macro_f1", None),
    ]
    comparisons = [compared("few_shot"), compared("previous_best", 0.0312, verdict="better", p_value_holm=0.0002)]
    changes = {
        "run": run,
        "per_class": per_class,
        "metrics": intervals,
        "slices": [
            Slice(by=by, value_of=value_of, n_rows=n, metric=metric,
                  primary=UNDEFINED if v is None else Interval(value=v, ci_low=v - 0.0303, ci_high=v + 0.0404))
            for by, value_of, n, metric, v in slices
        ],
        "calibration": [
            CalibrationBin(low=0.0, high=0.5, n_rows=0, confidence=None, accuracy=None),
            CalibrationBin(low=0.5, high=0.75, n_rows=9, confidence=0.6123, accuracy=0.7317),
            CalibrationBin(low=0.75, high=1.0, n_rows=36, confidence=0.9211, accuracy=0.8413),
        ],
        "seeds": Seeds(seeds=[42, 43, 44], runs=[run, "baseline.s43", "baseline.s44"],
                       mean={"macro_f1": 0.7111, "accuracy": 0.7444, "mcc": -0.1119},
                       sd={"macro_f1": 0.0131, "accuracy": 0.0142, "mcc": None}),
        "n_failed": 1201, "n_retries": 1302, "n_shortened": 1403, "comparisons": comparisons,
    }  # fmt: skip
    others = {
        "few_shot": baseline(task, 0.5877, 0.4966, 0.6855),
        "previous_best": baseline(task, 0.6, 0.5, 0.7, "exp-07"),
    }
    return found.model_copy(update=changes), others


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
    gate = Gate(passed=False, target=0.8512, reasons=["macro_f1 0.711 < target 0.851", "not better than zero_shot"])
    metrics = measured(task, rows, comparisons=[compared("zero_shot")], gate=gate, warnings=["2 rows were cut"])
    baselines = {
        "majority": baseline(task, 0.1601, 0.1502, 0.1703),
        "zero_shot": baseline(task, 0.5877, 0.4966, 0.6855),
    }
    page, markdown = write(tmp_path, task, rows, metrics, baselines=baselines)
    words = REPORT[language]
    reasons = shortfalls(0.8512, task.evaluation.must_beat, metrics, language)
    assert len(reasons) == 4  # the target, two baselines that were not computed, one that was not beaten
    expected = ["0.711", "0.622", "0.833", "0.744 [0.656, 0.867]", "0.160 [0.150, 0.170]", "0.588 [0.497, 0.685]"]
    expected += ["+0.123 [−0.046, +0.279]", "0.037", "0.111", "0.062", "0.851", *reasons, "2 rows were cut"]
    expected += [words["systems"][key] for key in ("finetuned", "majority", "zero_shot")]
    expected += [words["undefined"], words["not_distinguishable"]]
    expected += [words[key] for key in ("p_value", "p_value_holm", "mcnemar_p_value")] + ["a1" * 32, "b2" * 32]
    expected += [f"{value:.3f}" for row in metrics.per_class.values() for key, value in row.items() if key != "support"]
    for text in (Page(page).text, visible_text_of_markdown(markdown)):
        assert [item for item in expected if item not in text] == []


@pytest.mark.parametrize("language", ["zh-TW", "en"])
def test_intervals_of_classes_slices_calibration_and_seeds_stand_in_both_files(tmp_path, language):
    task, rows = definition(language=language), some_rows()
    metrics, baselines = everything(task, rows)
    page, markdown = write(tmp_path, task, rows, metrics, baselines=baselines)
    words = REPORT[language]
    expected = [
        words["systems"]["few_shot"].format(n=6),
        words["systems"]["previous_best"].format(run="exp-07"),
        "0.111",
        "<0.001",
    ]
    expected += [words[name].format(n=getattr(metrics, name)) for name in ("n_failed", "n_retries", "n_shortened")]
    for values in metrics.per_class.values():
        expected += [f"0.500 [{values[f'{n}_ci_low']:.3f}, {values[f'{n}_ci_high']:.3f}]" for n in ("precision", "f1")]
    expected += ["-0.112 [-0.223, 0.034]", "0.314 [0.272, 0.358]", words["lower_is_better"]]
    expected += [words["ece_sentence"].format(ece="0.077 [0.051, 0.104]"), "0.50–0.75", "0.612", "0.732", "0.841"]
    expected += ["4-12", "0.661 [0.630, 0.701]", "recall", "0.812 [0.782, 0.852]", "data/raw/b.csv", "—"]
    expected += [words["scripts"]["traditional"], words["scripts"]["simplified"], *words["slice_by"].values()]
    expected += ["baseline.s43", "0.013", "0.014", words["one_seed"].format(run="baseline", seed=42)]
    for text in (Page(page).text, visible_text_of_markdown(markdown)):
        assert [item for item in expected if item not in text] == []
    assert "0.00–0.50" not in page + markdown  # a bin without rows
    assert "| 4-12 | 30 | 0.661 [0.630, 0.701] |" in markdown and "4-12 30 0.661 [0.630, 0.701]" in Page(page).text


def test_a_metrics_file_from_before_these_parts_still_renders(tmp_path):
    task, rows = definition(), some_rows()
    metrics = measured(task, rows, comparisons=[compared("majority")], gate=Gate(passed=True, target=0.7, reasons=[]))
    old = metrics.model_dump(mode="json")
    for name in ("slices", "calibration", "seeds", "n_failed", "n_retries", "n_shortened"):
        del old[name]
    for name in ("p_value_holm", "mcnemar_p_value"):
        del old["comparisons"][0][name]
    page, markdown = write(tmp_path, task, rows, Metrics.model_validate(old))
    assert "+0.123 [−0.046, +0.279] | 0.037 |  |  |" in markdown
    sections = re.findall(r'<section[^>]* id="(\w+)"', page)
    assert sections == re.findall(r'<a href="#(\w+)"', page) == ["comparison", "metrics", "classes", "matrix", "errors"]
    assert Page(page).text.count("0.037") == 1


def test_with_seeds_the_verdict_names_their_mean_and_spread(tmp_path):
    task, rows = definition(language="en"), some_rows()
    metrics, baselines = everything(task, rows)
    page, markdown = write(tmp_path, task, rows, metrics, baselines=baselines)
    sentence = "macro_f1 over 3 seeds is 0.711 ± 0.013 (mean ± sd; 95 % interval 0.622 to 0.833); no gate."
    assert markdown.splitlines()[2] == f"**On {len(rows)} test rows, {sentence}**"
    assert sentence in Page(page).text
    assert "0.711 ± 0.013 · mean of 3 seeds macro_f1" in Page(page).text


def test_a_comparison_with_an_undefined_metric_says_so(tmp_path):
    task, rows = definition(language="en"), some_rows()
    metrics = measured(task, rows, comparisons=[compared("zero_shot", None)])
    page, markdown = write(tmp_path, task, rows, metrics)
    assert "| Base model, not tuned | undefined | undefined |  |  | 0.062 | not distinguishable |" in markdown
    assert "None" not in Page(page).text


def test_the_reliability_diagram_puts_each_bin_at_its_confidence_and_accuracy(tmp_path):
    task, rows = definition(), some_rows()
    metrics, baselines = everything(task, rows)
    page, _ = write(tmp_path, task, rows, metrics, baselines=baselines)
    diagram = page[page.index('<svg class="diagram"') : page.index("</svg>", page.index('<svg class="diagram"'))]
    ideal = re.search(r'class="ideal" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', diagram)
    left, bottom, right, top = map(float, ideal.groups())
    dots = [tuple(map(float, dot)) for dot in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)">', diagram)]
    bins = [item for item in metrics.calibration if item.n_rows]
    assert len(dots) == len(bins) == 2
    for (x, y, _), item in zip(dots, bins, strict=True):
        assert (x - left) / (right - left) == pytest.approx(item.confidence, abs=0.001)
        assert (bottom - y) / (bottom - top) == pytest.approx(item.accuracy, abs=0.001)
    assert dots[0][2] < dots[1][2]  # more rows, a larger dot


def test_whiskers_stand_at_the_ends_of_the_interval_and_the_axis_holds_every_value(tmp_path):
    task, rows = definition(), some_rows()
    metrics, baselines = everything(task, rows)
    page, _ = write(tmp_path, task, rows, metrics, baselines=baselines)
    places = [float(value) for value in re.findall(r'(?:x1|x2|cx)="([\d.-]+)%"', page)]
    assert places and all(0 <= place <= 100 for place in places)
    section = page[page.index('id="metrics"') : page.index('id="seeds"')]
    mcc = section[section.index("<code>mcc</code>") :]
    assert re.search(r'x1="([\d.]+)%" x2="([\d.]+)%"', mcc).groups() == ("38.86", "51.69")  # of an axis from -1 to 1
    assert re.search(r'cx="([\d.]+)%"', mcc).group(1) == "44.41"
    assert re.findall(r">(-?[\d.]+)</text>", section) == ["-1", "-0.5", "0", "0.5", "1"]
    seeds = page[page.index('id="seeds"') : page.index('id="calibration"')]  # mean - sd to mean + sd, the same axis
    assert re.search(r'x1="([\d.]+)%" x2="([\d.]+)%"', seeds).groups() == ("84.90", "86.21")


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
    score = words["score_one"].format(metric="macro_f1", value="0.711", low="0.622", high="0.833")
    ending = words["outcome_none" if outcome == "neutral" else f"outcome_{outcome}"]
    sentence = words["verdict_sentence"].format(split=words["split"]["test"], n=len(rows), score=score, outcome=ending)
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
    full, baselines = everything(task, rows)
    page += "".join(write(tmp_path, task, rows, full, baselines=baselines))
    assert not re.search(r"[\u3000-\u9fff\uff00-\uffef]", page + markdown)


def test_the_best_system_is_marked_even_when_it_is_a_baseline(tmp_path):
    task, rows = definition(language="en"), some_rows()
    baselines = {"majority": baseline(task, 0.2, 0.1, 0.3), "tfidf_logreg": baseline(task, 0.9, 0.8, 0.95)}
    page, markdown = write(tmp_path, task, rows, measured(task, rows), baselines=baselines)
    assert re.findall(r"\| ([^|]*) ★ best \|", markdown) == ["TF-IDF + logistic regression"]
    assert re.findall(r'<th scope="row">([^<]*) <span class="pill best">', page) == ["TF-IDF + logistic regression"]


def test_a_comparison_without_baseline_metrics_is_shown_under_its_own_name(tmp_path):
    task, rows = definition(language="en"), some_rows()
    comparison = compared("exp-07", 0.2, ci_low=0.1, ci_high=0.3, p_value=0.01, p_value_holm=0.02, verdict="better")
    page, markdown = write(tmp_path, task, rows, measured(task, rows, comparisons=[comparison]))
    assert "| exp-07 | undefined | +0.200 [+0.100, +0.300] | 0.010 | 0.020 | 0.062 | this model is better |" in markdown
    assert "exp-07" in Page(page).text


def test_a_served_model_stands_under_its_own_name_beside_runs_under_theirs(tmp_path):
    task, rows = definition(language="en"), some_rows()
    metrics = measured(task, rows, "served/qwen3", comparisons=[compared("split"), compared("majority")])
    _, markdown = write(tmp_path, task, rows, metrics, baselines={"split": baseline(task, 0.6, 0.5, 0.7)})
    assert "| This model, served/qwen3 ★ best | 0.711" in markdown
    assert "| split | 0.600" in markdown  # a run may be called what a word of the page is called
    assert "Fine-tuned" not in markdown and "| Majority class | undefined |" in markdown


@pytest.mark.parametrize("n_labels", [2, 30])
def test_hostile_texts_change_nothing_but_text(tmp_path, n_labels):
    def pages(texts: Sequence[str], labels: dict[str, str]) -> tuple[str, str]:
        task, (first, second, *_) = definition(labels, "en"), labels
        rows = [(text, first, second) for text in texts]
        metrics, baselines = everything(task, rows, source=texts[2], run=texts[0])
        baselines["previous_best"] = baselines["previous_best"].model_copy(update={"run": texts[4]})
        gate = Gate(passed=False, target=0.9, reasons=[texts[0]])
        metrics = metrics.model_copy(update={"gate": gate, "warnings": [texts[1]]})
        return write(tmp_path, task, rows, metrics, scored=False, raw=texts[2], baselines=baselines)

    many = {f"topic {i}": f"t{i}" for i in range(n_labels - 2)}
    page, markdown = pages(HOSTILE, {HOSTILE[3]: "</option>&lt;", "<i>": "</td>"} | many)
    harmless, harmless_markdown = pages(["x"] * len(HOSTILE), {"one": "1", "two": "2"} | many)
    parsed, reference = Page(page), Page(harmless)
    assert parsed.elements == reference.elements
    assert parsed.scripts == reference.scripts and len(parsed.scripts) == 1
    assert [text for text in HOSTILE if " ".join(text.split()) not in parsed.text] == []
    rendered = [MarkdownIt("gfm-like", {"linkify": False}).render(text) for text in (markdown, harmless_markdown)]
    assert Page(rendered[0]).elements == Page(rendered[1]).elements
    assert [text for text in HOSTILE if text not in visible_text_of_markdown(markdown)] == []


def test_the_page_loads_nothing_from_anywhere(tmp_path):
    task, rows = definition(), some_rows()
    metrics, baselines = everything(task, rows)
    page, _ = write(tmp_path, task, rows, metrics, baselines=baselines)
    parsed = Page(page)
    loading = {"src", "srcset", "href", "xlink:href", "action", "formaction", "poster", "data", "background"}
    assert {name for name, value in parsed.attributes if not str(value).startswith("#")} & loading == set()
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
    sentence = "On 0 test rows, macro_f1 is undefined: gate not passed."
    assert sentence in Page(page).text and sentence in markdown
    assert "nan" not in (Page(page).text + markdown).casefold()


def test_wrong_rows_are_sorted_by_confidence_and_cut_with_a_word(tmp_path):
    task = definition()
    rows = [(f"text {i}", "neutral", "positive") for i in range(report_facts.MAX_WRONG_ROWS + 7)]
    page, markdown = write(tmp_path, task, rows[::-1], measured(task, rows))
    confidences = [float(value) for value in re.findall(r'<td class="confidence"[^>]*>([\d.]+)<', page)]
    assert len(confidences) == report_facts.MAX_WRONG_ROWS
    assert confidences == sorted(confidences, reverse=True)
    words = REPORT["zh-TW"]["more_errors"]
    assert words.format(shown=report_facts.MAX_WRONG_ROWS, total=len(rows)) in page
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
    assert len(re.findall(r'<th scope="row"[^>]*>topic-', page)) == 2 * 30
    assert "| topic-29（主題29） | topic-03（主題3） | 1 |" in markdown  # no matrix of 30 columns


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
const pause = () => new Promise((resolve) => setTimeout(resolve, 50));
const get = (id) => document.getElementById(id);
const rows = () => Array.from(get("rows").rows).filter((row) => row.getClientRects().length > 0);
const enter = (id, value) => {
  get(id).value = value;
  get(id).dispatchEvent(new Event("input", { bubbles: true }));
};
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const seen = () => [rows().length, Number(get("shown").textContent)];
const reset = async () => { get("filters").querySelector("button[type=reset]").click(); await pause(); };
function finish(result) {
  result.width = innerWidth;
  result.too_wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  result.hacked = window.hacked === undefined ? null : window.hacked;
  result.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  result.problems = window.problems;
  parent.postMessage(result, "*");
}
</script>"""
DRIVE = """<script>
addEventListener("load", async () => {
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
  await reset();
  result.reset = seen();
  enter("confidence", "0.90");
  result.sure = [...seen(), get("threshold").textContent];
  enter("confidence", "0.85");
  document.querySelector("#confusion button[data-gold='=positive'][data-predicted='=negative']").click();
  await pause();
  result.cell = [...seen(), get("gold").value, get("predicted").value, get("confidence").value];
  finish(result);
});
</script>"""
DRIVE_MANY = """<script>
addEventListener("load", async () => {
  const result = { all: seen() };
  const order = () => Array.from(get("labels").tBodies[0].rows, (row) => row.cells[0].textContent);
  const heads = get("labels").tHead.rows[0].cells;
  result.labels = order();
  heads[3].firstElementChild.click();
  result.worst = [order()[0], heads[3].ariaSort];
  heads[3].firstElementChild.click();
  result.best = [order()[0], heads[3].ariaSort];
  heads[0].firstElementChild.click();
  result.labels_again = order();
  const buttons = Array.from(get("confusion").querySelectorAll("button"));
  const at = () => {
    const { gold, predicted } = document.activeElement.dataset;
    return [gold, predicted];
  };
  result.tab_stops = buttons.filter((button) => button.tabIndex === 0).length;
  buttons[0].focus();
  result.keys = [at()];
  for (const key of ["ArrowDown", "ArrowUp", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowLeft"]) {
    press(key);
    result.keys.push(at());
  }
  result.readout = get("readout").textContent;
  result.tab_stops_after = buttons.filter((button) => button.tabIndex === 0).length;
  document.querySelector("#pairs button").click();
  await pause();
  result.pair = [...seen(), get("gold").value, get("predicted").value, document.activeElement.id];
  finish(result);
});
</script>"""
FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<pre id="result"></pre><iframe src="driven.html" style="width:{width}px;height:900px;border:0"></iframe>
<script>addEventListener("message", (event) => {{
  document.getElementById("result").textContent = JSON.stringify(event.data);
}});</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a real browser: neither chromium nor google-chrome is on PATH")
@pytest.mark.parametrize("width", [1200, 380])
def test_the_filters_work_in_a_real_browser_opened_from_a_file(tmp_path, width):
    task = definition()
    rows = [(text, "positive", "negative") for text in HOSTILE] + [("無斷點" + "x" * 3000, "neutral", "negative")]
    rows += [(f"普通的第 {i} 列", "neutral", "positive") for i in range(5)] + [("對", "neutral", "neutral")]
    metrics, baselines = everything(task, rows, source="data/raw/" + "long" * 40 + ".csv", run="r" * 90)
    folder = tmp_path / "報告 1"
    page, _ = write(folder, task, rows, metrics, baselines=baselines)
    result = driven(folder, page, DRIVE, width)
    assert result["problems"] == [] and result["hacked"] is None and result["requests"] == []
    assert result["texts"][: len(HOSTILE)] == HOSTILE
    assert result["all"] == [12, 12]
    assert result["searched"] == [1, 1]
    assert result["none"] == [0, 0, False]
    assert result["gold"] == [6, 6]
    assert result["both"] == [1, 1]
    assert result["reset"] == [12, 12]
    assert result["sure"] == [1, 1, "0.90"]  # row i is predicted with confidence 0.9 - i/1000
    assert result["cell"] == [6, 6, "=positive", "=negative", "0"]
    assert result["width"] == width and not result["too_wide"]


@pytest.mark.skipif(CHROMIUM is None, reason="needs a real browser: neither chromium nor google-chrome is on PATH")
@pytest.mark.parametrize("width", [1200, 380])
def test_fifty_labels_can_be_sorted_walked_by_keys_and_filtered_by_pair(tmp_path, width):
    labels = {f"topic-{i:02d}": f"很長的主題名稱{i}" for i in range(50)}
    task, names = definition(labels), list(labels)
    rows = [(f"對 {name}", name, name) for name in names]
    rows += [("a", "topic-03", "topic-07"), ("b", "topic-03", "topic-09"), ("c", "topic-05", "topic-07")]
    rows += [("d", "topic-09", "topic-03")] * 3
    per_class = {name: {"precision": 0.5, "recall": 0.5, "f1": (i * 7 % 50) / 50, "support": 1.0}
                 for i, name in enumerate(names)}  # fmt: skip
    page, _ = write(tmp_path, task, rows, measured(task, rows, per_class=per_class))
    result = driven(tmp_path, page, DRIVE_MANY, width)
    assert result["problems"] == [] and result["all"] == [6, 6]
    assert result["labels"] == result["labels_again"] and len(result["labels"]) == 50
    lowest, highest = (pick(per_class, key=lambda name: per_class[name]["f1"]) for pick in (min, max))
    assert result["worst"] == [f"{lowest}（{labels[lowest]}）", "ascending"]
    assert result["best"] == [f"{highest}（{labels[highest]}）", "descending"]
    assert result["tab_stops"] == result["tab_stops_after"] == 1
    first, second, below = ["=topic-03", "=topic-07"], ["=topic-03", "=topic-09"], ["=topic-05", "=topic-07"]
    assert result["keys"] == [first, below, first, second, second, first, first]  # nothing below or before
    assert result["readout"] == "topic-03（很長的主題名稱3） → topic-07（很長的主題名稱7）: 1 (33 %)"
    assert result["pair"] == [3, 3, "=topic-09", "=topic-03", "errors"]
    assert result["width"] == width and not result["too_wide"]


def driven(folder: Path, page: str, script: str, width: int) -> dict:
    """What the script found in the page, `width` pixels wide, in a real browser. A frame is as narrow as it is told to
    be; a window is not."""
    changed = page.replace("<head>", "<head>" + LISTEN).replace("</body>", script + "</body>")
    (folder / "driven.html").write_text(changed, encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={folder / 'profile'}", "--window-size=1300,900", "--virtual-time-budget=10000",
               "--dump-dom", frame.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    found = re.search(r'<pre id="result">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the page never finished: {done.stderr[-2000:]}"
    return json.loads(html.unescape(found.group(1)))


# Every task type, closed or open.


def evaluated(name, language="en", answers=every_type.wrong):
    made = every_type.definition_of(name, language=language)
    data = evaluation.Rows("validation", every_type.processed(made), [])
    decoding = made.evaluation.decoding
    result = evaluation.score(made, data, answers(made), run="baseline", decoding=decoding, identity="x")
    return made, data.rows, result


@pytest.mark.parametrize("language", ["zh-TW", "en"])
@pytest.mark.parametrize("name", every_type.NAMES)
def test_the_report_of_any_type_shows_its_wrong_rows_and_no_empty_section(tmp_path, name, language):
    made, rows, result = evaluated(name, language)
    report.write(tmp_path, made, result.metrics, result.predictions, rows, {})
    page, markdown = ((tmp_path / f).read_text(encoding="utf-8") for f in ("report.html", "report.md"))
    sections = re.findall(r'<section[^>]* id="(\w+)"', page)
    assert sections == re.findall(r'<a href="#(\w+)"', page)
    is_closed = made.task_type.label_set(made.task) is not None
    assert ("matrix" in sections) == is_closed == (REPORT[language]["confusion"] in markdown)
    assert ("classes" in sections) == bool(result.metrics.per_class)
    n_right = row_scores.right(made, result.predictions).sum()
    shown = re.findall(r'<td class="id searched"><code>([^<]+)</code>', page)
    assert len(shown) == len(rows) - n_right > 0 and set(shown) <= {row["id"] for row in rows}
    for part in (Page(page).text, visible_text_of_markdown(markdown)):
        assert "None" not in part and "nan" not in part.casefold()


@pytest.mark.parametrize("name", every_type.NAMES)
def test_right_answers_of_any_type_are_no_wrong_rows(tmp_path, name):
    made, rows, result = evaluated(name, answers=every_type.right)
    report.write(tmp_path, made, result.metrics, result.predictions, rows, {})
    assert REPORT["en"]["no_errors"] in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", every_type.NAMES)
def test_open_answers_stand_with_the_lowest_score_first(tmp_path, name):
    made, rows, result = evaluated(name)
    report.write(tmp_path, made, result.metrics, result.predictions, rows, {})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    scores = [float(value) for value in re.findall(r'class="score">[^<]*<b>([\d.]+)</b>', page)]
    assert scores == sorted(scores)
    is_closed = made.task_type.label_set(made.task) is not None
    assert (scores == []) == is_closed == ('id="gold"' in page)


def test_entities_are_marked_in_the_text_as_right_missing_and_spurious():
    text = "台積電在新竹設廠，聯電跟進"
    gold = [(0, 3, "ORG"), (4, 6, "LOC")]
    predicted = [(0, 3, "ORG"), (4, 8, "LOC"), (9, 11, "ORG"), (90, 99, "ORG")]
    pieces = shown.marked(text, gold, predicted)
    assert "".join(piece.text for piece in pieces) == text
    assert [(p.text, p.kinds, p.closing) for p in pieces if p.kinds] == [
        ("台積電", ("right",), (("right", "ORG"),)),
        ("新竹", ("missing", "spurious"), (("missing", "LOC"),)),
        ("設廠", ("spurious",), (("spurious", "LOC"),)),
        ("聯電", ("spurious",), (("spurious", "ORG"),)),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"), ("", "-"), ([], "-"), ({}, "-"), (["a", "b"], "a\nb"), ([["甲", "正面"]], "甲 · 正面"),
        ({"a": 1, "b": {"c": "d"}}, 'a: 1\nb: {"c": "d"}'), ([{"entity": "甲", "n": None}], "entity: 甲, n: null"),
        ([{"start": 0, "end": 2, "type": "ORG"}], "ORG: ab (0–2)"),
        ([{"start": None, "end": None, "type": "ORG", "text": "x"}], "ORG: x (–)"),
        ([-0.5, -1.25], "-0.5\n-1.25"), (3, "3"),
    ],
)  # fmt: skip
def test_answers_of_any_shape_are_readable(value, expected):
    assert shown.answer(value, "abc", "-") == expected


DRIVE_OPEN = """<script>
addEventListener("load", async () => {
  const result = { all: seen() };
  enter("search", "no such text");
  result.none = seen();
  await reset();
  result.reset = seen();
  finish(result);
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a real browser: neither chromium nor google-chrome is on PATH")
@pytest.mark.parametrize("name", every_type.NAMES)
def test_the_search_works_in_a_real_browser_for_any_type(tmp_path, name):
    made, rows, result = evaluated(name, "zh-TW")
    report.write(tmp_path, made, result.metrics, result.predictions, rows, {})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = driven(tmp_path, page, DRIVE_OPEN, 380)
    n = len(rows) - int(row_scores.right(made, result.predictions).sum())
    assert found["problems"] == [] and found["requests"] == [] and not found["too_wide"]
    assert (found["all"], found["none"], found["reset"]) == ([n, n], [0, 0], [n, n])
