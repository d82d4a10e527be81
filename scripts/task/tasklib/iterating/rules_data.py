"""Faults of the data: rows in the wrong place, labels missing, rare or wrong, texts that are cut or say nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tasklib.data import text_faults
from tasklib.iterating import label_noise, rules_answers, rules_training
from tasklib.iterating.evidence import Answered, Evidence
from tasklib.iterating.findings import MAX_ROWS, Finding, experiment, percent, suggest_labels

LEAKED = 0.05  # share of the validation rows with a near copy in train
ENOUGH_ROWS = 20  # rows of a split below which its distribution says nothing
SHORTENED = 0.3  # share of the texts that are cut
LOST = 0.3  # share of their tokens that is lost
COPIES = 0.15  # share of the training rows that repeat another one
SHIFTED = 0.85  # area under the curve of a classifier that tells training texts from others; 0.5 is alike
OTHER_LABELS = 0.3  # total variation distance of the label shares in train and validation
NO_BETTER = 0.1  # macro recall above chance that is no signal yet
LEARNT = 0.9  # times chance: a training loss below it says that the labels were learnt at all
STUBBORN = 0.08  # share of the training rows that the run, trained on them, still answers otherwise
NOISE_IN_VALIDATION = 0.15  # share of the validation labels that confident learning calls wrong
RARE = 0.35  # share of an equal share
RARER_THAN_VALIDATION = 0.35  # times the label's share in validation
CONVERT = "uv run python scripts/02_convert_format.py"


def leakage(e: Evidence) -> Finding | None:
    """Validation texts that stand nearly unchanged in train: part of the score is memory."""
    if not e.answered or len(e.near_copies) < max(3, LEAKED * len(e.rows["validation"])):
        return None
    copies = {e.rows["validation"][i]["id"]: e.rows["train"][j] for i, j in e.near_copies.items()}
    leaked = [row for row in e.answered if row.row["id"] in copies]
    clean = [row for row in e.answered if row.row["id"] not in copies]
    seen, unseen = _right(leaked), _right(clean)
    rows = [f"{row.place} is nearly {_place(copies[row.row['id']])}" for row in leaked[:MAX_ROWS]]
    share = len(copies) / len(e.rows["validation"])
    hypothesis = f"{percent(share)} of the validation rows were near copies of training rows"
    return Finding(
        code="leakage",
        confidence="high",
        message=f"{len(copies)} of {len(e.rows['validation'])} validation rows are near copies of training rows"
        + (f": {_shown(e, seen)} of them, {_shown(e, unseen)} of the others" if clean and leaked else ""),
        evidence={"n_copies": len(copies), "right_among_copies": seen, "right_among_others": unseen},
        rows=rows,
        first="name all files under data.files.all in task_definition.yaml, so that near copies are kept on one side, "
        f"then {CONVERT}:",
        command=experiment(e, "no-leak", hypothesis),
        expect=f"an honest score near {_shown(e, unseen)}; it will be lower, and it will hold on new texts",
    )


def label_never_trained(e: Evidence) -> Finding | None:
    """A label that validation has and train has not."""
    validation = Counter(label for row in e.rows["validation"] for label in e.module.strata(e.record_of(row)))
    missing = {label: n for label, n in validation.items() if not e.train_labels[label] and n >= 2}
    if not missing:
        return None
    label = max(missing, key=lambda name: missing[name])
    rows = e.answered if e.labels else []  # an open answer says nothing of a label alone
    given = Counter(str(row.prediction) for row in rows if label in e.module.strata(e.record_of(row.row)))
    instead, n = given.most_common(1)[0] if given else ("", 0)
    said = f"; {n} of them are answered {instead!r}" if n else ""
    hypothesis = f"no training row had the label {label!r}: a mapping had merged or lost it"
    return Finding(
        code="label_never_trained",
        confidence="high",
        message=f"{missing[label]} validation rows have the label {label!r}, no training row has it{said}",
        evidence={"label": label, "n_validation": missing[label], "n_train": 0, "answered_instead": instead},
        rows=[_place(row) for row in e.rows["validation"] if label in e.module.strata(e.record_of(row))][:MAX_ROWS],
        first="look how the training file came by its labels"
        + (f": rows of {label!r} are probably written as {instead!r}" if instead else "")
        + f". Mend them in a new file, name it in data.files, then {CONVERT}:",
        command=experiment(e, "labels-mended", hypothesis),
        expect=f"recall of {label!r} above 0" + (f", and a higher precision of {instead!r}" if instead else ""),
    )


def texts_truncated(e: Evidence) -> Finding | None:
    """Texts that lose much to prompt.shorten."""
    lengths, limit = e.token_lengths, e.config.training.max_length
    found = e.statistics.get("train", {})
    n_cut, n_rows = found.get("n_shortened", 0), max(1, found.get("n_rows", 0))
    if n_cut < SHORTENED * n_rows or not lengths:
        return None
    longest = found.get("trained_tokens_per_row", {}).get("max", 0)
    overhead = min(lengths) if len(lengths) > 1 else 0
    needed = [n for n in lengths if n + longest > limit]
    lost = float(np.mean([(n + longest - limit) / max(1, n - overhead + 1) for n in needed])) if needed else 0.0
    if lost < LOST:
        return None
    wanted = int(np.percentile(lengths, 99)) + longest
    wanted += -wanted % 32
    hypothesis = f"{percent(n_cut / n_rows)} of the texts lose about {percent(min(lost, 1))} of their tokens"
    return Finding(
        code="texts_truncated",
        confidence="high",
        message=f"{n_cut} of {n_rows} training texts are cut by prompt.shorten to fit training.max_length {limit}; "
        f"they lose about {percent(min(lost, 1))} of their tokens",
        evidence={"n_shortened": n_cut, "n_rows": n_rows, "max_length": limit, "p99_tokens": wanted},
        command=experiment(e, "longer", hypothesis, training__max_length=wanted),
        expect="no text is cut (n_shortened 0); memory and time grow with the length",
        search={"training.max_length": {"choices": sorted({(limit + wanted) // 2, wanted})}},
    )


def repeated_rows(e: Evidence) -> Finding | None:
    """Equal training texts that outweigh the others."""
    from tasklib.data import dataset

    keys = [dataset.text_key(text) for text in e.texts("train")]
    counts = Counter(keys)
    n_copies = len(keys) - len(counts)
    if n_copies < COPIES * len(keys):
        return None
    worst = {key for key, n in counts.most_common(5) if n > 1}
    examples = [row for key, row in dict(zip(keys, e.rows["train"], strict=True)).items() if key in worst]
    most = counts.most_common(1)[0][1]
    hypothesis = f"{percent(n_copies / len(keys))} of the training rows repeat another one"
    return Finding(
        code="repeated_rows",
        confidence="high",
        message=f"{n_copies} of {len(keys)} training rows repeat a text; one of them stands {most} times: the model "
        "learns those rows and their labels, not the task",
        evidence={"n_copies": n_copies, "n_rows": len(keys), "most_copies": most},
        rows=[_place(row) for row in examples][:MAX_ROWS],
        first=f"write the training file again with each text once, name it in data.files, then {CONVERT}:",
        command=experiment(e, "unique-rows", hypothesis),
        expect="as good a score in less time, and probabilities that follow the true shares of the labels",
    )


def split_shift(e: Evidence) -> Finding | None:
    """Texts of validation or test that a classifier tells from those of train.

    Classifier two-sample test (Lopez-Paz & Oquab 2017), by the area under its ROC curve. Only texts are looked at, so
    that nothing is learnt from the test labels. Copies in train are counted once.
    """
    areas = {
        split: _separability(sorted(set(e.texts("train"))), e.texts(split))
        for split in ("validation", "test")
        if len(e.rows.get(split, ())) >= ENOUGH_ROWS
    }
    split = max(areas, key=lambda name: areas[name], default="")
    if not split or areas[split] < SHIFTED:
        return None
    area = areas[split]
    signs = [f"a simple classifier tells {split} texts from training texts (area under the curve {area:.2f})"]
    signs += _signs(e, split)
    hypothesis = f"train and {split} rows were of different kinds"
    return Finding(
        code="split_shift",
        confidence="high",
        message="; ".join(signs),
        evidence={"split": split, "area_under_curve": round(area, 3)},
        rows=[_place(row) for row in e.rows[split][:5]],
        first="if both kinds will come in use, name all files under data.files.all, so that each split gets some of "
        f"both; if only the kind of {split} will come, label such texts for train. Then {CONVERT}:",
        command=experiment(e, "same-kind", hypothesis),
        expect=f"an area near 0.5, and a {split} score nearer to that on rows of train's kind",
    )


def no_signal(e: Evidence) -> Finding | None:
    """Neither words nor the model tell the labels apart: what decides them is not in the texts."""
    words = e.tfidf_macro_recall
    if words is None or not e.answered or e.metrics is None or len(e.labels) < 2:
        return None
    chance = 1 / sum(1 for label in e.labels if e.train_labels[label])
    found = e.metrics.metrics.get("macro_recall")
    if words > chance + NO_BETTER or found is None or found.value is None or found.value > chance + NO_BETTER:
        return None
    hypothesis = "the texts now hold what decides the label"
    return Finding(
        code="no_signal",
        confidence="high",
        message=f"macro recall is {found.value:.2f} for the run and {words:.2f} for TF-IDF (cross-validated on train); "
        f"guessing gives {chance:.2f}: the texts do not say which label they have",
        evidence={"macro_recall": found.value, "tfidf_macro_recall": round(words, 3), "chance": round(chance, 3)},
        rows=[row.place for row in e.answered if not row.is_right][:5],
        first="read ten rows: can a person tell the label from this text? Check that data.fields.text names the right "
        f"column and that labels were not shifted against texts; mend the data, then {CONVERT}:",
        command=experiment(e, "right-texts", hypothesis),
        expect="a TF-IDF baseline clearly above the majority before anything is trained again",
    )


def label_noise_found(e: Evidence) -> Finding | None:
    """Many labels that the run, though trained on them or confident of the contrary, contradicts.

    Two independent views must agree: training rows that are still answered otherwise (small-loss view: Arpit et al.
    2017), and confident learning on validation (Northcutt et al. 2021), whose rows the run never saw.
    """
    scored = [row for row in e.answered if row.probabilities]
    has_learnt = e.trained and e.knows_chance and e.last_loss < LEARNT * e.chance_loss
    if not has_learnt or len(scored) < ENOUGH_ROWS or not e.labels:
        return None
    if rules_training.is_short(e) and rules_answers.below_tfidf(e):
        return None  # words alone read these texts better: such a run is no judge of labels
    stubborn = [row for row in e.trained if not row.is_right]
    share = len(stubborn) / len(e.trained)
    probabilities = np.array([[row.probabilities.get(label, 0.0) for label in e.labels] for row in scored])
    suspects = label_noise.issues([row.gold for row in scored], probabilities, e.labels)
    in_validation = len(suspects) / len(scored)
    if share < STUBBORN or in_validation < NOISE_IN_VALIDATION:
        return None
    pairs = Counter((row.gold, row.prediction) for row in stubborn).most_common(2)
    shown = ", ".join(f"{given!r} that reads as {read!r} ({n})" for (given, read), n in pairs)
    rows = [row.place for row in sorted(stubborn, key=lambda row: -row.confidence)]
    rows += [scored[item.position].place for item in suspects]
    hypothesis = f"about {percent((share + in_validation) / 2)} of the labels were wrong"
    return Finding(
        code="label_noise",
        confidence="high" if share > 1.5 * STUBBORN else "medium",
        message=f"{len(stubborn)} of {len(e.trained)} training rows are answered otherwise by the run that was trained "
        f"on them, and {len(suspects)} of {len(scored)} validation labels look wrong; most: {shown}",
        evidence={"share_in_train": round(share, 3), "share_in_validation": round(in_validation, 3)},
        rows=rows[:MAX_ROWS],
        first=f"check those rows: {suggest_labels(e.name)}, fill "
        f"checked_label, uv run python scripts/suggest_labels.py merge, then {CONVERT}:",
        command=experiment(e, "labels-checked", hypothesis),
        expect=f"up to {in_validation:.2f} more accuracy on validation once its own labels are right",
    )


def class_imbalance(e: Evidence) -> Finding | None:
    """A label with few training rows, for its share in validation or by itself, that is answered too seldom."""
    counts, total = e.train_labels, sum(e.train_labels.values())
    validation = Counter(label for row in e.rows["validation"] for label in e.module.strata(e.record_of(row)))
    if not e.metrics or not e.labels or not total or len(counts) < 2:
        return None
    recalls = {label: values.get("recall") for label, values in e.metrics.per_class.items()}
    known = [value for value in recalls.values() if value is not None]
    found = []
    for label, n in counts.items():
        share, expected = n / total, validation[label] / max(1, sum(validation.values()))
        recall = recalls.get(label)
        is_starved = expected and share < RARER_THAN_VALIDATION * expected and validation[label] >= 5
        is_rare = share < RARE / len(counts)
        is_missed = recall is not None and recall < 0.75 * float(np.mean(known))
        if recall is not None and (is_starved or (is_rare and is_missed)):
            found.append((share, label, n, recall, expected))
    if not found or e.config.imbalance.sampling != "natural":
        return None
    share, label, n, recall, expected = min(found)
    hypothesis = f"{label!r} has {n} of {total} training rows: draw every label equally often"
    return Finding(
        code="class_imbalance",
        confidence="high" if n < 10 or recall < 0.5 else "medium",
        message=f"{label!r} has {n} of {total} training rows ({percent(share)}; {percent(expected)} of validation) and "
        f"a recall of {recall:.2f}; the mean over the labels is {float(np.mean(known)):.2f}",
        evidence={"label": label, "n_train": n, "recall": round(recall, 3), "share_in_validation": round(expected, 3)},
        rows=[row.place for row in e.answered if row.gold == label and not row.is_right][:MAX_ROWS],
        first=f"more rows of {label!r} help most (scripts/suggest_labels.py suggest --pool FILE); without them:"
        if n < 10
        else None,
        command=experiment(e, "balanced", hypothesis, imbalance__sampling="class_balanced"),
        expect=f"a higher recall of {label!r}, a somewhat lower precision of it; macro-F1 says whether it pays",
        search={"imbalance.sampling": {"choices": ["natural", "class_balanced"]}},
    )


# ---- helpers --------------------------------------------------------------------------------------------------------


def _place(row: dict) -> str:
    return f"{row['source']['file']}:{row['source']['line']}"


def _right(rows: Sequence[Answered]) -> float:
    """The mean of what the rows are worth; with labels the share that is right."""
    return round(float(np.mean([row.score for row in rows])), 3) if rows else 0.0


def _shown(e: Evidence, value: float) -> str:
    return f"{percent(value)} right" if e.labels else f"a mean {e.definition.primary_metric} of {value:.2f}"


def _separability(ours: list[str], theirs: list[str]) -> float:
    """Cross-validated area under the ROC curve of TF-IDF of character 1- to 3-grams with the length, case and script of
    the texts among them, and logistic regression with balanced classes."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline

    limit = 2000  # of each side: a shift that matters shows in these
    texts, sides = [*ours[:limit], *theirs[:limit]], [0] * len(ours[:limit]) + [1] * len(theirs[:limit])
    pipeline = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, lowercase=False),
        LogisticRegression(max_iter=1000, class_weight="balanced", random_state=0),
    )
    found = cross_val_predict(pipeline, texts, sides, cv=5, method="predict_proba")[:, 1]
    return float(roc_auc_score(sides, found))


def label_shift(e: Evidence) -> Finding | None:
    """Labels that are much more frequent in one of train and validation than in the other, none of them rare."""
    distance, label = _label_distance(e)
    if distance < OTHER_LABELS:
        return None
    hypothesis = "train and validation had other shares of the labels"
    return Finding(
        code="label_shift",
        confidence="medium",
        message=f"the shares of the labels in train and validation differ by {percent(distance)} (total variation), "
        f"most for {label!r}",
        evidence={"label_distance": round(distance, 3), "label": label},
        first="draw train and validation from one pool (data.files.all), or label more rows of the labels that are "
        f"rarer in train than they will be in use, then {CONVERT}:",
        command=experiment(e, "same-shares", hypothesis),
        expect="a score that does not depend on which split is looked at",
    )


def _label_distance(e: Evidence) -> tuple[float, str]:
    """Half the sum of the differences between the label shares of train, each text once, and validation; and the label
    that differs most. Test labels are not looked at."""
    shares = []
    for split in ("train", "validation"):
        unique = dict(zip(e.texts(split), e.rows[split], strict=True)).values()
        counts = Counter(label for row in unique for label in e.module.strata(e.record_of(row)))
        shares.append({label: n / max(1, sum(counts.values())) for label, n in counts.items()})
    differences = {name: abs(shares[0].get(name, 0) - shares[1].get(name, 0)) for name in {*shares[0], *shares[1]}}
    if len(e.rows["validation"]) < ENOUGH_ROWS or not differences:
        return 0.0, ""
    return sum(differences.values()) / 2, max(sorted(differences), key=lambda name: differences[name])


def _signs(e: Evidence, split: str) -> list[str]:
    """In what the two differ, as far as it has a name: length, script of Chinese, source files, capitals."""
    train, other = e.texts("train"), e.texts(split)
    long, short = float(np.median([len(t) for t in other])), float(np.median([len(t) for t in train]))
    found = []
    if max(long, short) > 1.3 * max(1.0, min(long, short)):
        found.append(f"half of them have more than {long:.0f} characters, in train {short:.0f}")
    scripts = [Counter(text_faults.script_of(text) or "none" for text in texts) for texts in (train, other)]
    for name in ("traditional", "simplified"):
        ours, theirs = scripts[0][name] / max(1, len(train)), scripts[1][name] / max(1, len(other))
        if abs(ours - theirs) > 0.3:
            found.append(f"{percent(theirs)} are written in {name} Chinese, in train {percent(ours)}")
    for name in sorted(
        {row["source"]["file"] for row in e.rows["train"]} & {row["source"]["file"] for row in e.rows[split]}
    ):
        parts = [[row["source"]["file"] == name for row in e.rows[part]] for part in ("train", split)]
        ours, theirs = (float(np.mean(part)) for part in parts)
        if abs(ours - theirs) > 0.3:
            found.append(f"{percent(theirs)} are from {name}, in train {percent(ours)}")
    upper = [float(np.mean([t.isupper() for t in texts])) for texts in (train, other)]
    if abs(upper[0] - upper[1]) > 0.3:
        found.append(f"{percent(upper[1])} are in capitals, in train {percent(upper[0])}")
    return found
