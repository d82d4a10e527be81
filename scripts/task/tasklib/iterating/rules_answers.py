"""Faults that show in the answers: text that cannot be parsed, too few rows to tell, labels that are taken for each
other, baselines that are not beaten, seeds that differ more than runs."""

from __future__ import annotations

from collections import Counter

from tasklib.data import answers, expected_interval
from tasklib.iterating.evidence import Answered, Evidence
from tasklib.iterating.findings import MAX_ROWS, Finding, experiment, script

UNPARSED = 0.02  # share of the rows
WIDE = 0.12  # half of a 95 % interval: what most changes gain is smaller
WANTED_HALF_WIDTH = 0.05
PAIR = 0.5  # share of all wrong rows that one pair of labels makes up
FEW_ERRORS = 10


def answers_cut(e: Evidence) -> Finding | None:
    """Generated answers that stop in the middle: of a label, or because what is learnt is longer than what may be
    written."""
    if e.metrics is not None and not e.labels and e.metrics.decoding == "generate":
        return _open_answers_cut(e)
    kinds = failures(e)
    cut = kinds.get("cut", [])
    if len(cut) < UNPARSED * max(1, len(e.answered)) or not cut:
        return None
    longest = e.statistics.get("train", {}).get("trained_tokens_per_row", {}).get("max", 0)
    now = e.config.generation.max_new_tokens
    wanted = longest + 1 if longest else 2 * now
    return Finding(
        code="answers_cut",
        confidence="high",
        message=f"{len(cut)} of {len(e.answered)} answers stop in the middle of a label, e.g. {cut[0].raw_output!r}: "
        f"the longest answer has {longest} tokens with its end of turn",
        evidence={"n_cut": len(cut), "n_rows": len(e.answered), "longest_answer_tokens": longest},
        rows=[row.place for row in cut[:MAX_ROWS]],
        first=f"write generation.max_new_tokens: {wanted} into configs/{e.name}.yaml; nothing is to be trained again:",
        command=script("04_evaluate.py", e.name, "--set", f"generation.max_new_tokens={wanted}"),
        expect="no unparsed answer of this kind (parse_rate 1.0)",
    )


def _open_answers_cut(e: Evidence) -> Finding | None:
    """One training answer in twenty, at least, is longer than `max_new_tokens`."""
    found, now = e.statistics.get("train", {}).get("trained_tokens_per_row", {}), e.config.generation.max_new_tokens
    p95, longest = found.get("p95", 0), found.get("max", 0)
    if p95 <= now:
        return None
    return Finding(
        code="answers_cut",
        confidence="high",
        message=f"one training answer in twenty has {p95} tokens or more, the longest {longest}; "
        f"generation.max_new_tokens is {now}: what is longer is cut, whatever was learnt",
        evidence={"p95_answer_tokens": p95, "longest_answer_tokens": longest, "max_new_tokens": now},
        rows=[row.place for row in e.answered if row.prediction is None][:MAX_ROWS],
        first=f"write generation.max_new_tokens: {longest + 1} into configs/{e.name}.yaml; nothing is to be trained "
        "again:",
        command=script("04_evaluate.py", e.name, "--set", f"generation.max_new_tokens={longest + 1}"),
        expect="answers that end by themselves, and a higher score of the long ones",
    )


def parse_failures(e: Evidence) -> Finding | None:
    """Generated answers that name no label, or several, or are not of the form of open answers."""
    kinds = {kind: rows for kind, rows in failures(e).items() if kind != "cut"}
    n = sum(map(len, kinds.values()))
    if n < UNPARSED * max(1, len(e.answered)) or not n:
        return None
    kind, rows = max(kinds.items(), key=lambda item: len(item[1]))
    epochs = int(e.config.training.num_train_epochs + 2)
    shown = ", ".join(f"{name.replace('_', ' ')} {len(found)}" for name, found in kinds.items())
    what = "are no label" if e.labels else "cannot be parsed"
    hypothesis = f"{n} answers {what} ({kind.replace('_', ' ')}): the form is not learnt yet"
    return Finding(
        code="parse_failures",
        confidence="medium",
        message=f"{n} of {len(e.answered)} answers could not be parsed ({shown}), e.g. {rows[0].raw_output!r}",
        evidence={"n_unparsed": n, **{name: len(found) for name, found in kinds.items()}},
        rows=[row.place for row in rows[:MAX_ROWS]],
        first="evaluation.decoding: score compares the labels themselves and cannot fail in this way; if free text "
        "must be generated:"
        if "score" in e.module.DECODINGS
        else "read some of them: are they cut (generation.max_new_tokens), or of another form than the training rows? "
        "If the form is not learnt yet:",
        command=experiment(e, "epochs", hypothesis, training__num_train_epochs=epochs),
        expect="a parse_rate of 1.0",
    )


def failures(e: Evidence) -> dict[str, list[Answered]]:
    """Unparsed answers by kind: empty, cut (the beginning of a label), several_labels, refusal, other_text."""
    if e.metrics is None or e.metrics.decoding != "generate":
        return {}
    known = [answers.fold(text) for text in (e.module.label_set(e.definition.task) or {}).values()]
    found: dict[str, list[Answered]] = {}
    for row in e.answered:
        if row.prediction is None:
            found.setdefault(_kind(answers.fold(row.raw_output or ""), known), []).append(row)
    return found


def _kind(text: str, known: list[str]) -> str:
    if not text:
        return "empty"
    text = text.rstrip("\ufffd")  # what is left of a character whose last bytes were cut
    if any(answer.startswith(text) and answer != text for answer in known):
        return "cut"
    named = answers.longest_occurrences(text, known)
    if len(named) > 1:
        return "several_labels"
    return "other_text"


def too_few_rows_to_tell(e: Evidence) -> Finding | None:
    """An interval so wide that neither the target nor the next change can be judged."""
    primary = e.metrics.primary if e.metrics else None
    if primary is None or primary.value is None or primary.ci_low is None or primary.ci_high is None:
        return None
    half = (primary.ci_high - primary.ci_low) / 2
    target = e.definition.evaluation.target
    straddles = target is not None and primary.ci_low < target <= primary.ci_high and half > WIDE / 2
    if half < WIDE and not straddles:
        return None
    needed = None
    if e.labels:
        counts, level = Counter(row.gold for row in e.answered), target or min(0.95, max(0.5, primary.value))
        needed = expected_interval.rows_needed(
            e.module, e.definition.task, primary.name, counts, level=level, half_width=WANTED_HALF_WIDTH
        )
    text = f"; about {needed} rows give ±{WANTED_HALF_WIDTH}" if needed else ""
    hypothesis = "the validation split was too small to tell anything"
    return Finding(
        code="too_few_rows_to_tell",
        confidence="high" if half >= WIDE else "low",
        message=f"{e.metrics.n_rows} validation rows give {primary.name} {primary.value:.2f} with a 95 % interval from "
        f"{primary.ci_low:.2f} to {primary.ci_high:.2f}" + (f", target {target:g} inside" if straddles else "") + text,
        evidence={"n_rows": e.metrics.n_rows, "half_width": round(half, 3), "rows_needed": needed},
        first="give validation more rows (data.split.validation, or more rows in its file), then "
        "uv run python scripts/02_convert_format.py:",
        command=experiment(e, "more-rows", hypothesis),
        expect=f"an interval of about ±{WANTED_HALF_WIDTH}: only then can changes be told apart",
    )


def confused_labels(e: Evidence) -> Finding | None:
    """Two labels that make up most of the wrong rows of a run that misses its target."""
    target = e.definition.evaluation.target
    if e.metrics is None or target is None or e.metrics.primary.value is None or e.metrics.primary.value >= target:
        return None
    wrong = [row for row in e.answered if not row.is_right and row.prediction is not None]
    pairs = Counter(tuple(sorted((str(row.gold), str(row.prediction)))) for row in wrong)
    if len(wrong) < FEW_ERRORS or len(e.labels) < 3:
        return None
    (one, other), n = pairs.most_common(1)[0]
    if n < PAIR * len(wrong):
        return None
    rows = [row for row in wrong if {str(row.gold), str(row.prediction)} == {one, other}]
    rows.sort(key=lambda row: -row.confidence)
    hypothesis = f"{one!r} and {other!r} are told apart by a definition now"
    return Finding(
        code="confused_labels",
        confidence="medium",
        message=f"{n} of {len(wrong)} wrong rows take {one!r} for {other!r} or the other way round",
        evidence={"labels": [one, other], "n_confused": n, "n_wrong": len(wrong)},
        rows=[f"{row.place} {row.gold!r} → {row.prediction!r}: {row.text[:60]}" for row in rows[:MAX_ROWS]],
        first="read these rows. If people cannot tell the two apart either, merge the labels; else write the "
        "difference into task.label_definitions and prompt.instruction, and check the rows' labels "
        "(scripts/suggest_labels.py):",
        command=experiment(e, "label-definitions", hypothesis),
        expect=f"fewer than {n} such rows; compare_runs.py shows which were mended",
    )


def below_tfidf(e: Evidence) -> Finding | None:
    """TF-IDF is proven better than the run, and nothing above says why."""
    ours = next((c for c in e.metrics.comparisons if c.against == "tfidf_logreg"), None) if e.metrics else None
    if ours is None or ours.verdict != "worse":
        return None
    other = e.baselines.get("tfidf_logreg")
    value = f" ({other.primary.value:.3f})" if other and other.primary.value is not None else ""
    hypothesis = "a stronger base model is needed to pass what words alone say"
    return Finding(
        code="below_tfidf",
        confidence="medium",
        message=f"TF-IDF with logistic regression{value} is better than this run ({e.metrics.primary.value:.3f}): "
        "words alone say more than the run has learnt",
        evidence={"delta": ours.delta, "p_value_holm": ours.p_value_holm},
        first="ask whether fine-tuning is needed at all: TF-IDF is free and fast; if it is:",
        command=experiment(e, "base", hypothesis, base_model__id="Qwen/Qwen3-0.6B"),
        expect="a score above TF-IDF on the same rows, by the paired test",
    )


def seeds_differ(e: Evidence) -> Finding | None:
    """The spread over seeds is larger than the difference to the run that this one is compared with."""
    if e.metrics is None or e.metrics.seeds is None or not e.others:
        return None
    name = e.metrics.primary.name
    sd, value = e.metrics.seeds.sd.get(name), e.metrics.seeds.mean.get(name)
    near = {run: other.primary.value for run, other in e.others.items() if other.primary.value is not None}
    if not sd or value is None or not near:
        return None
    run, other = min(near.items(), key=lambda item: abs(item[1] - value))
    if abs(other - value) >= sd:
        return None
    n = len(e.metrics.seeds.seeds)
    return Finding(
        code="seeds_differ",
        confidence="medium",
        message=f"{name} varies by {sd:.3f} (sd) over {n} seeds; {run} differs from their mean by "
        f"{abs(other - value):.3f} only: the difference says nothing about the change",
        evidence={"sd": sd, "n_seeds": n, "difference": round(abs(other - value), 4), "against": run},
        command=script("03_train.py", run, "--seeds", str(max(3, n))),
        expect=f"both runs as means over {max(3, n)} seeds (04_evaluate.py --seeds), which compare_runs.py compares",
    )
