"""Renders docs/annotation_guide.md (for a labeller) and docs/integration.md (for an engineer) of one task."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tasklib.data import forms
from tasklib.data.decisions import Contradiction, Decision
from tasklib.export.parity import REFERENCE, Parity
from tasklib.markdown import literal, table
from tasklib.model import prompts
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.summary import Summary
from tasklib.texts import CLASSES
from tasklib.writing.guide_texts import ANNOTATION, INTEGRATION, OF_TYPE

MAX_CHARACTERS = 120  # of a text of the data in a table
MAX_CONTRADICTIONS = 50
KAPPA, HALF_WIDTH, ROWS_OF_A_LABEL = 0.8, 0.1, 10


def annotation_guide(
    definition: TaskDefinition,
    examples_by_label: Mapping[str, Sequence[str]],
    decisions: Sequence[Decision],
    contradictions: Sequence[Contradiction],
    own_rows: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Markdown for somebody who has never seen the task: what is judged, by which standard, and how the file looks.

    `examples_by_label` holds a few texts out of the data for each label; `contradictions` are those still open;
    `own_rows` are a few rows of the data, column -> value.
    """
    undecided = {} if "label" in definition.task_type.FIELDS else OF_TYPE[definition.language]["undecided"]
    words = ANNOTATION[definition.language] | undecided | _words_of_type(definition)
    if named := CLASSES[definition.language].get(definition.task.type):
        words |= {"label": named["label"], "labels": named["label"]}
    sections = [
        f"# {words['title']}: {literal(definition.name)}",
        words["intro"].format(definitions=_place_of_definitions(definition)),
        *_what(definition, words),
        *_labels(definition, words),
        *_examples(definition, examples_by_label, words),
        *_edge_cases(definition, decisions, contradictions, words),
        f"## {words['unsure']}",
        _numbered([step.format(definitions=_place_of_definitions(definition)) for step in words["unsure_steps"]]),
        *_file_rules(definition, examples_by_label, own_rows, words),
        *_sheet(definition, words),
        *_agreement(definition, words),
        *_duplicates(definition, words),
    ]
    return "\n\n".join(sections) + "\n"


def integration_guide(
    definition: TaskDefinition, config: RunConfig, measured: Parity | None = None, own: Any = None
) -> str:
    """Markdown for the engineer who calls the model: predict.py, the exact request, the legal answers, the parser, and
    how to serve it elsewhere, with what `export_model.py --verify` has `measured`. It shows `own`, a record of the
    task's data; without one, an example of the task type."""
    words = INTEGRATION[definition.language] | _words_of_type(definition)
    sections = [
        f"# {words['title']}: {literal(definition.name)}",
        words["intro"],
        *_call(definition, own, words),
        *_python_call(definition, own, words),
        *_input_forms(definition, words),
        *_request(definition, own, words),
        *_legal_answers(definition, own, words),
        *_settings(definition, config, words),
        *_serving(definition, config, measured, own, words),
    ]
    return "\n\n".join(sections) + "\n"


def rows_for_agreement(n_labels: int) -> int:
    """Rows that two people label so that the 95 % interval of Cohen's kappa is about ±0.1, rounded up to tens.

    Cohen (1960): SE = sqrt(p_o (1 - p_o) / n) / (1 - p_e), at kappa 0.8 and balanced labels, so p_e = 1 / n_labels
    and p_o = p_e + 0.8 (1 - p_e). At least 10 rows for each label.
    """
    chance = 1 / n_labels
    observed = chance + KAPPA * (1 - chance)
    n_rows = (1.96 / HALF_WIDTH) ** 2 * observed * (1 - observed) / (1 - chance) ** 2
    return max(math.ceil(n_rows / 10) * 10, ROWS_OF_A_LABEL * n_labels)


def fenced(text: str, language: str = "") -> str:
    """A code block that nothing inside it can close."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


# The annotation guide.


def _what(definition: TaskDefinition, words: dict[str, Any]) -> list[str]:
    description = literal(definition.description) if definition.description.strip() else words["no_description"]
    return [
        f"## {words['what']}",
        words["task"].format(description=description),
        words["unit"],
        *([words["instruction"], fenced(shown)] if (shown := prompts.instruction(definition)) else []),
    ]


def _labels(definition: TaskDefinition, words: dict[str, Any]) -> list[str]:
    key, answers, defined = _named(definition)
    if wanted := getattr(definition.task, "json_schema", None):
        return [f"## {words['json_schema']}", words["json_schema_note"], fenced(_json(wanted), "json")]
    if not answers:
        return []
    rows = [(label, answer, defined.get(label, f"({words['undefined']})")) for label, answer in answers.items()]
    sections = [f"## {words['labels']}", table((words["label"], words["answer"], words["definition"]), rows)]
    if key and (missing := [label for label in answers if label not in defined]):
        lines = [f"    {_quoted(label)}: {_quoted(words['write_definition'])}" for label in missing]
        snippet = "\n".join(["task:", f"  {key}:", *lines])
        sections += [words["no_definitions"].format(n=len(missing)), fenced(snippet, "yaml")]
    return sections


def _examples(definition: TaskDefinition, found: Mapping[str, Sequence[str]], words: dict[str, Any]) -> list[str]:
    labels = list(_answers(definition)) or list(found)
    if not labels:
        return []
    rows = [(label, _cut(text)) for label in labels for text in found.get(label) or [f"({words['no_examples']})"]]
    header = (words["label"], words["example"])
    return [f"## {words['examples']}", words["examples_note"], table(header, rows)]


def _edge_cases(
    definition: TaskDefinition,
    decided: Sequence[Decision],
    contradictions: Sequence[Contradiction],
    words: dict[str, Any],
) -> list[str]:
    header = (words["text"], words["decided"], words["reason"])
    rows = [(_cut(item.text), item.label, item.reason) for item in decided]
    sections = []
    if "label" in definition.task_type.FIELDS:  # a decision is one label
        sections = [f"## {words['decisions']}", table(header, rows) if rows else words["no_decisions"]]
    sections += [f"## {words['contradictions']}"]
    if not contradictions:
        return [*sections, words["no_contradictions"]]
    rows = [
        (_cut(item.text), "; ".join(f"{label} ({place})" for label, place in item.seen))
        for item in contradictions[:MAX_CONTRADICTIONS]
    ]
    sections += [words["contradictions_note"], table((words["text"], words["seen"]), rows)]
    if more := len(contradictions) - len(rows):
        sections.append(words["more"].format(n=more))
    return sections


def _file_rules(
    definition: TaskDefinition,
    found: Mapping[str, Sequence[str]],
    own_rows: Sequence[Mapping[str, Any]],
    words: dict[str, Any],
) -> list[str]:
    columns, is_closed = _columns(definition), bool(_answers(definition))
    rows = [(words["roles"].get(role, role), column) for role, column in columns.items()]
    own = [] if is_closed else [{c: row[c] for c in columns.values() if row.get(c) is not None} for row in own_rows]
    sample = _as_file(columns, own) if own else _sample_file(definition, columns, found, words)
    note = "file_example" if is_closed else "file_example_own" if own else "file_example_open"
    return [
        f"## {words['file']}",
        _bullets([*(words["label_rules"] if is_closed else words["open_rules"]), *words["file_rules"]]),
        words["columns"],
        table((words["role"], words["column"]), rows),
        *_offsets(definition, words),
        words[note],
        fenced(sample, "json" if sample.startswith("{") else "csv"),
    ]


def _offsets(definition: TaskDefinition, words: dict[str, Any]) -> list[str]:
    """How the places of entities count, where rows say places."""
    offsets = getattr(definition.task, "offsets", None)
    if offsets is None or "entities" not in definition.data.fields:
        return []
    return [words["offsets"].format(unit=words["units"][offsets.unit], end=words["ends"][offsets.end])]


def _columns(definition: TaskDefinition) -> dict[str, str]:
    """Role -> column that a raw file needs, those of the split too."""
    split = definition.data.split
    extra = {"group": split.group_by, "time": split.time_field}
    taken = definition.data.fields.values()
    return {**definition.data.fields, **{role: name for role, name in extra.items() if name and name not in taken}}


def _sample_file(
    definition: TaskDefinition, columns: dict[str, str], found: Mapping[str, Sequence[str]], words: dict[str, Any]
) -> str:
    """Two rows with their answers: CSV where they are columns of texts, otherwise JSON lines. Those of labels have
    texts out of the data; others are the task type's own."""
    module = definition.task_type
    stand_ins = {"group": "A1", "time": "2026-01-31"}
    rows = [row for _, row in forms.examples(definition)]
    if answers := list(_answers(definition))[:2]:
        texts = [_cut((found.get(label) or [words["sample_text"].format(label=label)])[0]) for label in answers]
        rows = [
            {role: _sample_cell(module, row, role, text, label) for role in row}
            for row, text, label in zip(rows, texts, answers, strict=False)
        ]
    cells = [{column: (row | stand_ins)[role] for role, column in columns.items() if role in row | stand_ins}
             for row in rows[:2]]  # fmt: skip
    return _as_file(columns, cells)


def _as_file(columns: Mapping[str, str], cells: Sequence[Mapping[str, Any]]) -> str:
    if len(columns) == 1 or not all(isinstance(value, str) for row in cells for value in row.values()):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in cells)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns.values()), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    return out.getvalue()


def _sample_cell(module: Any, row: Mapping[str, Any], role: str, text: str, label: str) -> Any:
    """A label in the place of the answer; where rows are one text each, a text out of the data."""
    if role not in module.INPUT_FIELDS:
        return label
    return text if len(module.INPUT_FIELDS) == 1 else row[role]


def _sheet(definition: TaskDefinition, words: dict[str, Any]) -> list[str]:
    if not _answers(definition):
        return []  # proposals are labels
    commands = [
        "uv run python scripts/label_with.py propose --input texts.txt --model qwen3:8b "
        "--endpoint http://localhost:11434/v1",
        "uv run python scripts/label_with.py accept --input data/labelling/texts.csv --apply",
    ]
    return [
        f"## {words['sheet']}",
        words["sheet_intro"],
        fenced("\n".join(commands), "bash"),
        _bullets(words["sheet_rules"]),
    ]


AGREEMENT = """\
import csv
import sys

from sklearn.metrics import cohen_kappa_score

ASKED, LABEL = {asked}, {label}


def labels(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return {{" | ".join(row[name] for name in ASKED): row[LABEL] for row in csv.DictReader(file) if row[LABEL]}}


first, second = labels(sys.argv[1]), labels(sys.argv[2])
both = [text for text in first if text in second]
kappa = cohen_kappa_score([first[text] for text in both], [second[text] for text in both])
print(f"{{len(both)}} rows, kappa {{kappa:.3f}}")
for text in both:
    if first[text] != second[text]:
        print(f"{{first[text]}} / {{second[text]}}: {{text}}")
"""


def _agreement(definition: TaskDefinition, words: dict[str, Any]) -> list[str]:
    module, fields, n_labels = definition.task_type, definition.data.fields, len(_answers(definition))
    if not n_labels:
        return []  # kappa compares labels
    n = rows_for_agreement(n_labels)
    label = next(role for role in forms.form_of(definition).required if role not in module.INPUT_FIELDS)
    code = AGREEMENT.format(asked=repr(list(forms.inputs(definition).values())), label=repr(fields.get(label, label)))
    return [
        f"## {words['agreement']}",
        words["agreement_why"].format(n=n),
        words["agreement_n"].format(n=n, labels=n_labels),
        words["agreement_read"],
        words["agreement_how"],
        fenced(code, "python"),
    ]


def _duplicates(definition: TaskDefinition, words: dict[str, Any]) -> list[str]:
    rules, threshold = list(words["duplicates_rules"]), definition.data.split.near_duplicates
    if threshold is not None:
        rules.append(words["near_duplicates"].format(threshold=f"{threshold:g}"))
    return [f"## {words['duplicates']}", _bullets(rules)]


# The integration guide.


def _call(definition: TaskDefinition, own: Any, words: dict[str, Any]) -> list[str]:
    decoding = definition.evaluation.decoding
    row = _illustrated(definition, own)
    summary = Summary.of("predict", run="baseline", counts={"rows": 1}, outputs={"predictions": [row]})
    keys = [(key, _of_decoding(words[f"{key}_key"], decoding)) for key in row]
    return [
        f"## {words['call']}",
        words["call_note"],
        *([] if forms.single_text(definition) else [words["call_json"]]),
        fenced(f"uv run python scripts/predict.py {shlex.quote(_argument(definition, own))}", "bash"),
        words["output"],
        fenced(_json(dataclasses.asdict(summary)), "json"),
        words["fields"],
        table((words["key"], words["meaning"]), keys),
        words["exit_codes"],
    ]


def _argument(definition: TaskDefinition, own: Any) -> str:
    """An example row as predict.py takes it: its text, or a JSON object of its columns."""
    _, values = forms.example_input(definition, own)
    if role := forms.single_text(definition):
        return _one_line(values[role])
    return json.dumps(_input_row(definition, own), ensure_ascii=False)


def _illustrated(definition: TaskDefinition, own: Any) -> dict[str, Any]:
    """One entry of `predictions` with the keys that predict.py writes; numbers are made up, open answers are those of
    the task type's example."""
    module, answers = definition.task_type, _answers(definition)
    asked, _ = forms.example_input(definition, own)
    text = module.text_of(module.normalized(asked, definition.data.normalize, definition.task))
    if not answers:
        written, value = _open_answer(definition, own)
        return {"text": text, "prediction": value, "probabilities": None, "raw_output": written, "parsed": True}
    label = next(iter(answers))
    scored = definition.evaluation.decoding == "score"
    rest = round(0.1 / max(1, len(answers) - 1), 6)
    return {
        "text": text,
        "prediction": label,
        "probabilities": {name: 0.9 if name == label else rest for name in answers} if scored else None,
        "raw_output": None if scored else answers[label],
        "parsed": True,
    }


PYTHON_CALL = """\
import json
import subprocess
import tempfile
from pathlib import Path

TASK = Path(".")


def predict(rows):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\\n" for row in rows), encoding="utf-8")
        command = ["uv", "run", "python", "scripts/predict.py", "--file", str(file)]
        process = subprocess.run(command, cwd=TASK, stdout=subprocess.PIPE, encoding="utf-8")
    summary = json.loads(process.stdout)
    if process.returncode != 0:
        raise RuntimeError(summary["errors"])
    return summary["outputs"]["predictions"]


for row in predict([{row}]):
    print(row["prediction"] if row["parsed"] else "no answer")
"""


def _python_call(definition: TaskDefinition, own: Any, words: dict[str, Any]) -> list[str]:
    row = repr(_input_row(definition, own))
    code = PYTHON_CALL.replace("{row}", row)  # not format(): the code has braces of its own
    return [f"## {words['python']}", words["python_note"], fenced(code, "python")]


def _input_forms(definition: TaskDefinition, words: dict[str, Any]) -> list[str]:
    named, script = words["forms"], "uv run python scripts/predict.py"
    columns = ", ".join(map(literal, forms.inputs(definition).values()))
    is_text = forms.single_text(definition) is not None
    text = "TEXT" if is_text else "'{…}'"
    rows = [
        (named["argument" if is_text else "argument_json"], f"{script} {text} {text}"),
        (named["text_file" if is_text else "text_file_json"], f"{script} --file texts.txt"),
        (named["table"].format(columns=columns), f"{script} --file rows.{'csv' if is_text else 'jsonl'}"),
        (named["stdin" if is_text else "stdin_json"], f"{script} < texts.txt"),
        (named["output"], f"{script} --file rows.{'csv' if is_text else 'jsonl'} --output answers.jsonl"),
        (named["config"], f"{script} --config configs/baseline.yaml {text}"),
    ]
    lines = [f"| {words['input']} | {words['command']} |", "| --- | --- |"]
    lines += [f"| {form} | `{command}` |" for form, command in rows]
    return [f"## {words['inputs']}", "\n".join(lines)]


def _request(definition: TaskDefinition, own: Any, words: dict[str, Any]) -> list[str]:
    """The messages as training has them, with one of the task type's examples as the question."""
    asked, _ = forms.example_input(definition, own)
    record = definition.task_type.normalized(asked, definition.data.normalize, definition.task)
    messages = prompts.prefix_messages(definition, [])
    if n := definition.prompt.n_few_shot:
        shown = next(iter(_answers(definition).values()), "…")
        messages += [prompts.user_message(definition, record), {"role": "assistant", "content": shown}]
    messages = prompts.follow_up(messages, definition, record)
    sections = [f"## {words['request']}", words["request_note"], fenced(_json(messages), "json"), words["template"]]
    if n:
        sections.append(words["few_shot"].format(n=n))
    return [*sections, f"### {words['normalize']}", _normalization(definition, own, words)]


def _normalization(definition: TaskDefinition, own: Any, words: dict[str, Any]) -> str:
    """What `data.normalize` makes of a text with full-width characters."""
    if not definition.data.normalize:
        return words["no_normalize"]
    before = "ＡＢＣ１２３％"
    asked, _ = forms.example_input(definition, own)
    field = next(name for name, value in asked.model_dump().items() if isinstance(value, str) and value)
    record = asked.model_copy(update={field: before})
    after = getattr(definition.task_type.normalized(record, definition.data.normalize, definition.task), field)
    return words["nfkc"].format(before=before, after=after)


def _legal_answers(definition: TaskDefinition, own: Any, words: dict[str, Any]) -> list[str]:
    module, answers = definition.task_type, _answers(definition)
    if not answers:
        return _open_answers(definition, own, words)
    first, second = list(answers.values())[:2]
    tried = [first, f" {first}。\n", f"「{second}」", f"→ {first}", f"{first} {second}", "?", ""]
    rows = []
    for text in tried:
        label = module.parse(text, definition.task)
        rows.append((_quoted(text), words["unparsable"] if label is None else label))
    return [
        f"## {words['answers']}",
        words["answers_note"],
        table((words["answer"], words["label"]), [(answer, label) for label, answer in answers.items()]),
        f"## {words['parsing']}",
        words[f"parsing_{definition.evaluation.decoding}"],
        _bullets(words["parsing_rules"]),
        words["parsing_examples"],
        table((words["written"], words["parsed_as"]), rows),
    ]


def _open_answer(definition: TaskDefinition, own: Any) -> tuple[str, Any]:
    """What a model writes for the example, and what becomes of it."""
    module, (record, options) = definition.task_type, _shown(definition, own)
    written = module.answer(record, options)
    return written, module.resolved(record, [record], [module.parse(written, options)], options)


def _shown(definition: TaskDefinition, own: Any) -> tuple[Any, Any]:
    """A record and the options that it belongs to."""
    if own is not None:
        return own, definition.task
    return forms.examples(definition)[0][0], definition.task_type.EXAMPLE_OPTIONS


def _open_answers(definition: TaskDefinition, own: Any, words: dict[str, Any]) -> list[str]:
    """What an answer looks like that is no label, and what the task type's own parser makes of some."""
    module = definition.task_type
    written, _ = _open_answer(definition, own)
    _, options = _shown(definition, own)
    rows = []
    for text in (written, f" {written}\n", f"```json\n{written}\n```", "?", ""):
        value = module.parse(text, options)
        shown = words["unparsable"] if value is None else json.dumps(value, ensure_ascii=False)
        rows.append((_quoted(text), shown))
    return [
        f"## {words['open_answers']}",
        words["answer_form"],
        fenced(written, "text"),
        f"## {words['parsing']}",
        words[f"parsing_{definition.evaluation.decoding}"],
        _bullets([*words["parsing_open"], words["parsing_failed"]]),
        words["parsing_examples" if own is not None else "parsing_examples_open"],
        table((words["written"], words["parsed_as"]), rows),
    ]


def _settings(definition: TaskDefinition, config: RunConfig, words: dict[str, Any]) -> list[str]:
    rows = [
        ("base_model.id", config.base_model.id),
        ("base_model.revision", config.base_model.revision),
        ("base_model.dtype", config.base_model.dtype),
        ("adapter.type", config.adapter.type),
        ("evaluation.decoding", definition.evaluation.decoding),
        ("generation.max_new_tokens", config.generation.max_new_tokens),
        ("generation.batch_size", config.generation.batch_size),
    ]
    return [
        f"## {words['settings']}",
        table((words["setting"], words["value"]), rows),
        words["settings_note"][definition.evaluation.decoding],
    ]


TRANSFORMERS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER = "models/{run}/exports/merged"
MESSAGES = {messages}

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForCausalLM.from_pretrained(FOLDER)
prompt = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens={max_new_tokens})
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
"""
OPENAI = """\
from openai import OpenAI

MESSAGES = {messages}

client = OpenAI(base_url="http://localhost:8080/v1", api_key="none")
answer = client.chat.completions.create(
    model="{name}", messages=MESSAGES, temperature=0, max_tokens={max_new_tokens}
)
print(answer.choices[0].message.content.strip())
"""


def _serving(
    definition: TaskDefinition, config: RunConfig, measured: Parity | None, own: Any, words: dict[str, Any]
) -> list[str]:
    """Commands for each way of serving. tests/test_export.py runs the first three as they stand here."""
    run = measured.run if measured else "baseline"
    asked, _ = forms.example_input(definition, own)
    record = definition.task_type.normalized(asked, definition.data.normalize, definition.task)
    messages = prompts.asked(definition, [], record)
    values = {"{run}": run, "{messages}": repr(messages), "{name}": definition.name}
    values["{max_new_tokens}"] = str(config.generation.max_new_tokens)
    gguf = f"models/{run}/exports/gguf-q8_0/{definition.name}-{run}-q8_0.gguf"
    n_ctx, script = config.training.max_length + config.generation.max_new_tokens, "uv run python scripts"
    named = f"--config configs/{run}.yaml"
    own_server = f"uv run --extra gguf python scripts/tasklib/export/xllamacpp_server.py {gguf} {4 * n_ctx} 4 8080"
    llama = [f"{script}/export_model.py {named} --format gguf --quantize q8_0", own_server]
    binary = [f"llama-server --model {gguf} --jinja --ctx-size {4 * n_ctx} --parallel 4 --port 8080"]
    vllm = [f"vllm serve models/{run}/exports/merged --served-model-name {definition.name} --port 8080"]
    ollama = [f"{script}/export_model.py {named} --format ollama --quantize q8_0 --verify"]
    ollama += [f"ollama run {definition.name}"]
    served = f"--base-url http://localhost:8080/v1 --model {definition.name}"
    text = "TEXT" if forms.single_text(definition) else "'{…}'"
    again = [f"{script}/predict.py {named} {served} {text}"]
    again += [f"{script}/04_evaluate.py {named} --backend openai {served}"]
    again += [f"{script}/export_model.py {named} --verify {served}"]
    few = [words["serving_few_shot"]] if definition.prompt.n_few_shot else []
    return [
        f"## {words['serving']}",
        words["serving_note"],
        *few,
        "### transformers",
        fenced(f"{script}/export_model.py {named} --format merged", "bash"),
        fenced(_filled(TRANSFORMERS, values), "python"),
        f"### {words['llama']}",
        words["llama_note"],
        fenced("\n".join(llama), "bash"),
        words["llama_binary"],
        fenced("\n".join(binary), "bash"),
        f"### {words['openai']}",
        words["openai_note"],
        fenced(_filled(OPENAI, values), "python"),
        _bullets(words["openai_errors"]),
        f"### {words['vllm']}",
        fenced("\n".join(vllm), "bash"),
        f"### {words['ollama']}",
        words["ollama_note"],
        fenced("\n".join(ollama), "bash"),
        f"### {words['same']}",
        words["same_note"],
        fenced("\n".join(again), "bash"),
        f"### {words['measured']}",
        *_measured(measured, words),
    ]


def _filled(code: str, values: Mapping[str, str]) -> str:
    """The code with its places filled; not format(): code has braces of its own."""
    return re.sub("|".join(map(re.escape, values)), lambda found: values[found[0]], code)


def _measured(measured: Parity | None, words: dict[str, Any]) -> list[str]:
    """What each export answered on the validation rows, as export_model.py --verify found it."""
    if measured is None:
        return [words["not_measured"]]
    rows = []
    for system in measured.systems:
        same_prompts = words["unknown"] if system.prompt_check == "none" else system.n_rows - system.n_prompts_differ
        verdict = words["reference"] if system.name == REFERENCE else words["verdicts"]["no_score"]
        if system.comparison is not None:
            verdict = words["verdicts"][system.comparison.verdict]
        value = "–" if system.primary.value is None else f"{system.primary.value:.3f}"
        rows.append(
            (
                system.name,
                value,
                verdict,
                same_prompts,
                system.n_rows - system.n_texts_differ,
                f"{system.median_latency_s:.3f}",
                f"{system.rows_per_s:.1f}",
            )
        )
    gpu = measured.hardware.get("gpu")
    machine = gpu["name"] if gpu else f"{measured.hardware['cpu_count']} CPU cores, {measured.hardware['machine']}"
    note = words["measured_note"].format(n=measured.systems[0].n_rows, date=measured.date, machine=machine)
    columns = (words["system"], measured.metric, *words["measured_columns"])
    faults = [f"{s.name}: {fault}" for s in measured.systems for fault in [*s.faults, *([s.loss] if s.loss else [])]]
    return [note, table(columns, rows), *([_bullets(faults)] if faults else [])]


# Both.


def _answers(definition: TaskDefinition) -> dict[str, str]:
    """Label -> answer of the closed set; empty for open answers."""
    return definition.task_type.label_set(definition.task) or {}


def _words_of_type(definition: TaskDefinition) -> dict[str, Any]:
    """What is said otherwise of this task type: of open answers in general, then its own words."""
    found, is_open = OF_TYPE[definition.language], definition.task_type.label_set(definition.task) is None
    return (found["open"] if is_open else {}) | found.get(definition.task.type, {})


def _named(definition: TaskDefinition) -> tuple[str | None, dict[str, str], dict[str, str]]:
    """The key of `task` that holds definitions, each name that it defines with what the model writes for it, and the
    definitions that are not empty."""
    options = definition.task
    key = next((name for name in type(options).model_fields if name.endswith("_definitions")), None)
    if key is None:
        return None, _answers(definition), {}
    given, others = (
        getattr(options, key),
        [getattr(options, name) for name in type(options).model_fields if name != key],
    )
    names = _answers(definition) or next((value for value in others if isinstance(value, Mapping)), {})
    return key, dict(names), {label: text for label, text in given.items() if text.strip()}


def _place_of_definitions(definition: TaskDefinition) -> str:
    """The key of task_definition.yaml under which a person writes what counts as what."""
    if key := _named(definition)[0]:
        return f"task.{key}"
    return "task.json_schema" if getattr(definition.task, "json_schema", None) else "description"


def _input_row(definition: TaskDefinition, own: Any) -> dict[str, Any]:
    """Column -> value of one row to predict."""
    _, values = forms.example_input(definition, own)
    return {column: values[role] for role, column in forms.inputs(definition).items() if role in values}


def _of_decoding(words: str | dict[str, str], decoding: str) -> str:
    return words if isinstance(words, str) else words[decoding]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str) -> str:
    """One line of at most 120 characters."""
    line = _one_line(text)
    return line if len(line) <= MAX_CHARACTERS else line[: MAX_CHARACTERS - 1] + "…"


def _quoted(text: str) -> str:
    """A JSON string, which is a YAML string too; characters that YAML takes for line breaks or refuses are escaped."""
    escaped = (char if char.isprintable() else json.dumps(char)[1:-1] for char in json.dumps(text, ensure_ascii=False))
    return "".join(escaped)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _numbered(lines: Sequence[str]) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))
