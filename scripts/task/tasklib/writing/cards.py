"""Renders the Hub model card of one run, in the task's language: metadata for the Hub, then what a reader must know.

Every number comes from run.json and metrics.json. Nothing of the machine enters a card: no path, no command line, no
`compute`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasklib.data import answers, forms
from tasklib.export.contract import Contract
from tasklib.export.parity import System
from tasklib.markdown import table
from tasklib.model import builtin, models, prompts
from tasklib.schema import BaseModelSpec, RunConfig, TaskDefinition
from tasklib.scoring.metrics import Comparison, Interval, Metrics
from tasklib.texts import CLASSES, REPORT
from tasklib.training.runs import LOGGING_KEYS, RunRecord
from tasklib.writing.card_texts import MODEL_CARD

HUB_LANGUAGES = {"zh-TW": "zh", "en": "en"}  # the Hub takes ISO 639 codes
HUB_METRICS: dict[str, tuple[str, dict[str, str] | None]] = {
    "macro_f1": ("f1", {"average": "macro"}),
    "micro_f1": ("f1", {"average": "micro"}),
    "rouge_l": ("rouge", {"rouge_types": "rougeL"}),
    "rouge_1": ("rouge", {"rouge_types": "rouge1"}),
    "rouge_2": ("rouge", {"rouge_types": "rouge2"}),
}
METHOD_PAGES = {
    "sft": "https://huggingface.co/docs/trl/sft_trainer",
    "dpo": "https://huggingface.co/docs/trl/dpo_trainer",
    "orpo": "https://huggingface.co/docs/trl/orpo_trainer",
}
MAX_METRICS = 4  # in the table of results
ADAPTER_NAMES = {"lora": "LoRA", "qlora": "QLoRA", "dora": "DoRA", "qdora": "QDoRA"}
PIPELINE_TAG = "text-generation"  # the weights carry a language-model head; the Hub's own snippets follow this tag
MARK = "\x00"  # stands in no YAML file, so it cannot occur in an instruction
Words = dict[str, Any]


@dataclass(frozen=True)
class Served:
    """An export that the repository holds instead of the run's own files, and how it compared with the run."""

    contract: Contract
    system: System | None

    @property
    def is_standalone(self) -> bool:
        return self.contract.format != "adapter"

    @property
    def is_gguf(self) -> bool:
        return self.contract.format in ("gguf", "ollama")


def model_card(
    definition: TaskDefinition,
    record: RunRecord,
    results: dict[str, Metrics],
    baselines: dict[str, Metrics],
    served: Served | None = None,
) -> str:
    """README.md of the Hub repository; `served` where it holds an export.

    `results` holds the run's metrics by split, at least one of test and validation; test is what counts where it is
    present. `baselines` holds the metrics of other systems by name, on the rows of that split.
    """
    from huggingface_hub import ModelCard

    words = MODEL_CARD[definition.language]
    config = RunConfig.model_validate(record.config)
    result = headline(results)
    sections = [
        [f"# {definition.name}", definition.description, f"> {words['generated']}"],
        [*_purpose(definition, config, words), *_export(served, words)],
        _prompt(definition, words),
        _results(definition, result, baselines, words),
        _data(record, results, words),
        _training(record, words),
        [f"## {words['use']}", words["login"], *_use(definition, config, served, words)],
        [f"## {words['limits']}", "\n".join(f"- {line}" for line in _limits(definition, config, result, words))],
        [f"## {words['license']}", *_license(definition, config, words)],
    ]
    body = "\n\n".join(block for section in sections for block in section if block)
    card = f"---\n{_metadata(definition, config, result, served).to_yaml()}\n---\n\n{body}\n"
    ModelCard(card)  # raises when the Hub's own reader would not understand the metadata
    return card


def headline(results: dict[str, Metrics]) -> Metrics:
    """The metrics that the card is about: test where there is one, otherwise validation."""
    return results["test"] if "test" in results else results["validation"]


def without_paths(value: Any) -> Any:
    """The value with every path of this machine cut to its last part."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    is_path = isinstance(value, str) and re.match(r"/|~|\.\.?/|[A-Za-z]:[\\/]", value)
    return re.split(r"[\\/]", value.rstrip("\\/"))[-1] if is_path else value


def public_config(config: dict[str, Any]) -> dict[str, Any]:
    """A resolved config fit for publication: without paths of this machine and without where logs went."""
    kept = {key: value for key, value in config["training"].items() if key not in LOGGING_KEYS}
    return without_paths({**config, "training": kept})


def is_local(spec: BaseModelSpec) -> bool:
    """Whether the base model is a folder here, which nobody else can load."""
    return not builtin.is_builtin(spec.id) and (
        without_paths(spec.id) != spec.id or Path(spec.id).expanduser().is_dir()
    )


def base_name(spec: BaseModelSpec) -> str:
    """The base model as a card may name it: a Hub id, or the last part of a local path."""
    return Path(spec.id).name if is_local(spec) else models.hub_name(spec)


def usage_snippet(definition: TaskDefinition, config: RunConfig, *, is_standalone: bool = False) -> str:
    """Python that loads the uploaded model (`is_standalone`: no adapter on a base model) and asks it with exactly the
    prompt of training."""
    words = MODEL_CARD[definition.language]
    inputs = [part for position, part in enumerate(_prompt_parts(definition)) if position % 2]
    repository = definition.hub.repo_id or f"YOUR_NAME/{definition.name}"
    prefix = prompts.prefix_messages(definition, [])
    n_shots = definition.prompt.n_few_shot
    messages = [repr(message) for message in prefix] + (["*EXAMPLES"] if n_shots else [])
    messages.append(f'{{"role": "user", "content": {_prompt_expression(definition)}}}')
    lines = [
        *_loading(config, repository, words, is_standalone=is_standalone),
        *([f"EXAMPLES = []  # {words['code_few_shot'].format(n=n_shots)}"] if n_shots else []),
        "",
        "",
        f"def answer({', '.join(inputs)}):",
        *(f'    {name} = unicodedata.normalize("NFKC", {name})' for name in inputs if _is_nfkc(definition)),
        "    messages = [",
        *(f"        {message}," for message in messages),
        "    ]",
        "    prompt = tokenizer.apply_chat_template(",
        "        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False",
        "    )",
        '    inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)',
        f"    output = model.generate(**inputs, max_new_tokens={config.generation.max_new_tokens}, do_sample=False)",
        '    return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()',
        "",
        "",
        f"print(answer({', '.join(repr(words['code_text']) for _ in inputs)}))",
    ]
    head = ["import unicodedata", ""] if _is_nfkc(definition) else []
    return "\n".join([*head, *lines])


def _metadata(definition: TaskDefinition, config: RunConfig, result: Metrics, served: Served | None) -> Any:
    """The YAML block. What is not known is left out: the Hub reads an absent key as unknown."""
    from huggingface_hub import ModelCardData

    full = config.adapter.type == "full" or (served is not None and served.is_standalone)
    is_gguf = served is not None and served.is_gguf
    known = not is_local(config.base_model)
    evaluations = _evaluations(definition, result)
    return ModelCardData(
        language=HUB_LANGUAGES[definition.language],
        license=definition.hub.license,
        base_model=base_name(config.base_model) if known else None,
        base_model_relation=("quantized" if is_gguf else "finetune" if full else "adapter") if known else None,
        library_name="gguf" if is_gguf else "transformers" if full else "peft",
        pipeline_tag=PIPELINE_TAG,
        tags=[
            definition.task.type,
            config.method,
            config.adapter.type,
            "finetune-llm",
            "trl",
            *(["gguf"] if is_gguf else []),
        ],
        metrics=[evaluation.metric_type for evaluation in evaluations] or None,
        model_name=definition.name if evaluations else None,
        eval_results=evaluations or None,
    )


def _evaluations(definition: TaskDefinition, result: Metrics) -> list[Any]:
    """One entry of the model-index for each shown metric that is defined."""
    from huggingface_hub import EvalResult

    found = []
    for name in _shown_metrics(result):
        metric_type, metric_args = HUB_METRICS.get(name, (name, None))
        if result.metrics[name].value is not None:
            found.append(
                EvalResult(
                    task_type=PIPELINE_TAG,
                    task_name=definition.task.type,
                    dataset_type=definition.name,
                    dataset_name=definition.name,
                    dataset_split=result.split,
                    metric_type=metric_type,
                    metric_name=name,
                    metric_args=metric_args,
                    metric_value=result.metrics[name].value,
                )
            )
    return found


def _purpose(definition: TaskDefinition, config: RunConfig, words: Words) -> list[str]:
    template = words["what_full"] if config.adapter.type == "full" else words["what_adapter"]
    blocks = [
        f"## {words['what']}",
        template.format(
            base=_base_link(config.base_model),
            adapter=ADAPTER_NAMES.get(config.adapter.type),
            method=_method(config.method),
            task_type=definition.task.type,
        ),
    ]
    labels = definition.task_type.label_set(definition.task)
    if labels:
        blocks += [words["answers"], table((words["label"], words["answer"]), labels.items())]
    return blocks


def _export(served: Served | None, words: Words) -> list[str]:
    """What the repository holds, and how it compared with the run; nothing where that is the run's own adapter."""
    if served is None:
        return []
    kind = words["formats"][served.contract.format].format(quantization=served.contract.quantization)
    if served.system is None:
        return [kind, words["contract"], words["not_compared"]]
    s = served.system
    same_prompt = "?" if s.prompt_check == "none" else s.n_rows - s.n_prompts_differ
    if s.comparison is None:
        texts = words["compared_texts"].format(
            n=s.n_rows, same_text=s.n_rows - s.n_texts_differ, same_prompt=same_prompt
        )
        return [kind, words["contract"], texts]
    compared = words["compared"].format(
        n=s.n_rows,
        metric=s.comparison.metric,
        value=_number(s.primary.value, words),
        verdict=words["export_verdict"][s.comparison.verdict],
        same_text=s.n_rows - s.n_texts_differ,
        same_prompt=same_prompt,
    )
    return [kind, words["contract"], compared, *([f"**{words['loses']}**"] if s.loss else [])]


def _use(definition: TaskDefinition, config: RunConfig, served: Served | None, words: Words) -> list[str]:
    """How to ask it: Python, or the server of llama.cpp and Ollama for a GGUF file."""
    if served is None or not served.is_gguf:
        standalone = served is not None and served.is_standalone
        return [_fenced(usage_snippet(definition, config, is_standalone=standalone), "python")]
    repository = definition.hub.repo_id or f"YOUR_NAME/{definition.name}"
    name = next(name for name in served.contract.files if name.endswith(".gguf"))
    commands = [f"hf download {repository} {name} --local-dir .", f"llama-server --model {name} --jinja --port 8080"]
    if served.contract.format == "ollama":
        commands.append(f"ollama run hf.co/{repository}")
    n_new = config.generation.max_new_tokens
    return [_fenced("\n".join(commands), "bash"), words["ask_served"].format(n=n_new)]


def _prompt(definition: TaskDefinition, words: Words) -> list[str]:
    parts, system = _prompt_parts(definition), definition.prompt.system
    shown = "".join(f"{{{part}}}" if position % 2 else part for position, part in enumerate(parts))
    return [
        f"## {words['prompt']}",
        words["prompt_note"],
        *([words["system"], _fenced(system)] if system is not None else [words["no_system"]]),
        words["user"],
        _fenced(shown),
        words["turns"] if definition.task_type.history is not answers.no_history else "",
        words["nfkc"] if _is_nfkc(definition) else "",
        words["few_shot"].format(n=definition.prompt.n_few_shot) if definition.prompt.n_few_shot else "",
    ]


def _results(definition: TaskDefinition, result: Metrics, baselines: dict[str, Metrics], words: Words) -> list[str]:
    names, named = _shown_metrics(result), REPORT[definition.language]["systems"]
    comparisons = {c.against: c for c in result.comparisons}
    header = [
        words["system_name"],
        *(words["interval"].format(metric=name) for name in names),
        words["difference"],
        words["verdict"],
    ]
    rows = [[words["finetuned"], *(_interval(result.metrics[name], words) for name in names), "", ""]]
    for system, other in baselines.items():
        values = (_interval(other.metrics[name], words) if name in other.metrics else "" for name in names)
        shown = named.get(system, system).format(n=definition.evaluation.n_few_shot, run=other.run)
        rows.append([shown, *values, *_difference(comparisons.get(system), words)])
    split = words["split"][result.split]
    return [
        f"## {words['results']}",
        words["validation_only"] if result.split != "test" else "",
        words["results_on"].format(split=split, n=result.n_rows),
        table(header, rows),
        words["interval_note"] if baselines else words["no_baselines"],
        words["decoding"][result.decoding],
        _gate(result, words),
        *_per_class(result, words | CLASSES[definition.language].get(definition.task.type, {})),
    ]


def _gate(result: Metrics, words: Words) -> str:
    if result.gate is None:
        return ""
    target = "" if result.gate.target is None else words["target"].format(target=result.gate.target)
    return words["gate_passed" if result.gate.passed else "gate_failed"].format(target=target)


def _per_class(result: Metrics, words: Words) -> list[str]:
    if not result.per_class:
        return []
    names = [name for name in next(iter(result.per_class.values())) if "_ci_" not in name]
    rows = [
        [label, *(_number(values[name], words, digits=0 if name == "support" else 3) for name in names)]
        for label, values in result.per_class.items()
    ]
    return [f"### {words['per_class']}", table([words["label"], *(words.get(n, n) for n in names)], rows)]


def _data(record: RunRecord, results: dict[str, Metrics], words: Words) -> list[str]:
    rows = [(words["counts"][name], f"{record.counts[name]:,}") for name in words["counts"] if name in record.counts]
    rows += [
        (words["rows_of"].format(split=words["split"][split]), f"{metrics.n_rows:,}")
        for split, metrics in results.items()
    ]
    return [f"## {words['data']}", words["data_note"], table((words["item"], words["value"]), rows)]


def _training(record: RunRecord, words: Words) -> list[str]:
    config = public_config(record.config)
    config["base_model"]["id"] = base_name(BaseModelSpec.model_validate(record.config["base_model"]))
    rows = [("method", config["method"])]
    earlier = " → ".join(f"{link['run']} ({link['method']})" for link in record.chain)
    rows += [(words["start_from"], earlier)] if earlier else []
    for section in ("base_model", "adapter", "training", "generation"):
        rows += [(f"{section}.{key}", value) for key, value in config[section].items() if value is not None]
    rows += [(words["final"].get(name, name), f"{value:.4f}") for name, value in record.final.items()]
    versions = [(name, version) for name, version in record.environment.items() if name != "platform"]
    header = (words["item"], words["value"])
    return [f"## {words['training']}", table(header, rows), f"### {words['versions']}", table(header, versions)]


def _limits(definition: TaskDefinition, config: RunConfig, result: Metrics, words: Words) -> list[str]:
    spec, primary, lines = config.base_model, result.primary, []
    if builtin.is_builtin(spec.id):
        lines.append(words["limit_builtin"].format(base=base_name(spec), note=builtin.describe(spec.id).note))
    if is_local(spec):
        lines.append(words["limit_local"].format(base=base_name(spec)))
    if is_local(spec) and config.adapter.type != "full":
        lines.append(words["limit_local_adapter"])
    if primary.value is None or primary.ci_low is None or primary.ci_high is None:
        lines.append(words["limit_undefined"].format(metric=primary.name))
    else:
        lines.append(
            words["limit_interval"].format(
                split=words["split"][result.split],
                n=result.n_rows,
                metric=primary.name,
                width=f"{primary.ci_high - primary.ci_low:.3f}",
                low=f"{primary.ci_low:.3f}",
                high=f"{primary.ci_high:.3f}",
            )
        )
    if result.decoding == "score":
        lines.append(words["limit_score"])
    if result.decoding == "compare":
        lines.append(words["limit_compare"])
    return [*lines, words["limit_domain"], words["limit_bias"]]


def _license(definition: TaskDefinition, config: RunConfig, words: Words) -> list[str]:
    own, spec = definition.hub.license, config.base_model
    lines = [words["license_own"].format(license=own) if own else words["license_none"]]
    if builtin.is_builtin(spec.id):
        return [*lines, words["license_base"].format(license=builtin.describe(spec.id).license)]
    return [*lines, words["license_base_unknown"].format(base=_base_link(spec))]


def _loading(config: RunConfig, repository: str, words: Words, *, is_standalone: bool) -> list[str]:
    """Imports and loading, as tasklib.model.models does it."""
    spec, full = config.base_model, is_standalone or config.adapter.type == "full"
    quantized = config.adapter.is_quantized and not is_standalone
    options = [f"dtype={spec.dtype!r}"]
    if not full:
        options += [f"revision={spec.revision!r}"] if spec.revision != "main" and not is_local(spec) else []
        options += ["quantization_config=quantization"] if quantized else []
    options += ["trust_remote_code=True"] if spec.trust_remote_code else []
    loader = f"AutoModelForCausalLM.from_pretrained({'REPOSITORY' if full else 'BASE'}, {', '.join(options)})"
    compute = "bfloat16" if spec.dtype == "auto" else spec.dtype
    note = f"  # {words['code_local']}" if is_local(spec) else ""
    names = ["AutoModelForCausalLM", "AutoTokenizer", *(["BitsAndBytesConfig"] if quantized else [])]
    return [
        *([] if full else ["from peft import PeftModel"]),
        f"from transformers import {', '.join(names)}",
        "",
        f"REPOSITORY = {repository!r}",
        *([] if full else [f"BASE = {base_name(spec)!r}{note}"]),
        "",
        "tokenizer = AutoTokenizer.from_pretrained(REPOSITORY)",
        *(
            [
                'quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",',
                f"{' ' * 34}bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype={compute!r})",
            ]
            if quantized
            else []
        ),
        f"model = {loader}",
        *([] if full else ["model = PeftModel.from_pretrained(model, REPOSITORY)"]),
        "model.eval()",
    ]


def _prompt_parts(definition: TaskDefinition) -> list[str]:
    """The user message cut at its inputs: text, input name, text, input name, …, text. An input is a field of the
    record that a row to be answered fills."""
    asked, _ = forms.example_input(definition)
    names = [name for name, value in asked.model_dump().items() if isinstance(value, str) and value]
    blank = asked.model_copy(update={name: f"{MARK}{name}{MARK}" for name in names})
    return prompts.user_message(definition, blank)["content"].split(MARK)


def _prompt_expression(definition: TaskDefinition) -> str:
    """The user message as a Python expression over the inputs' names."""
    parts = _prompt_parts(definition)
    return " + ".join(part if position % 2 else repr(part) for position, part in enumerate(parts) if part)


def _is_nfkc(definition: TaskDefinition) -> bool:
    return "nfkc" in definition.data.normalize


def _shown_metrics(result: Metrics) -> list[str]:
    """The primary metric, and accuracy where the task has one; otherwise what else it could be judged by."""
    names = [result.primary.name, "accuracy"]
    names += [] if "accuracy" in result.metrics else result.metrics
    return [name for name in dict.fromkeys(names) if name in result.metrics and name != "parse_rate"][:MAX_METRICS]


def _method(name: str) -> str:
    page = METHOD_PAGES.get(name)
    return f"[{name.upper()}]({page})" if page else name.upper()


def _base_link(spec: BaseModelSpec) -> str:
    name = base_name(spec)
    return f"`{name}`" if is_local(spec) else f"[{name}](https://huggingface.co/{name})"


def _interval(value: Interval, words: Words) -> str:
    if value.value is None or value.ci_low is None or value.ci_high is None:
        return _number(value.value, words)
    return f"{value.value:.3f} ({value.ci_low:.3f} – {value.ci_high:.3f})"


def _difference(comparison: Comparison | None, words: Words) -> tuple[str, str]:
    if comparison is None:
        return "", ""
    if comparison.delta is None:
        return words["undefined"], words[comparison.verdict]
    delta = f"{comparison.delta:+.3f} ({comparison.ci_low:+.3f} – {comparison.ci_high:+.3f})"
    return delta, words[comparison.verdict]


def _number(value: float | None, words: Words, digits: int = 3) -> str:
    return words["undefined"] if value is None else f"{value:.{digits}f}"


def _fenced(text: str, language: str = "text") -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
