"""The two documents of a task: task_definition.yaml (the contract over all runs) and configs/<run>.yaml (one run)."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from tasklib import documents, task_types
from tasklib.documents import Document, KeyPath, dotted
from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError
from tasklib.upstream_fields import DPO_FIELDS, LORA_FIELDS, ORPO_FIELDS, SFT_FIELDS

NAME_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"
SPLITS = ("train", "validation", "test")
BASELINES_OF_MODELS = ("zero_shot", "few_shot", "previous_best")  # beside those of the task type
METHODS = ("sft", "dpo", "orpo")
TRL_FIELDS = {"sft": SFT_FIELDS, "dpo": DPO_FIELDS, "orpo": ORPO_FIELDS}
# Steps of data.normalize; those of OpenCC by its own names (github.com/BYVoid/OpenCC, README "Configurations").
OPENCC = ("s2t", "t2s", "s2tw", "tw2s", "s2twp", "tw2sp", "s2hk", "hk2s", "t2tw", "tw2t", "t2hk", "hk2t")
NORMALIZE_STEPS = ("nfkc", "halfwidth", *(f"opencc_{name}" for name in OPENCC))
NOT_FOR_DRAWING = ("group_by", "seed", "near_duplicates")  # keys of data.split that mean something without it too
EARLY_STOPPING_FIELDS = {
    "early_stopping_patience",
    "early_stopping_threshold",
}  # of transformers' EarlyStoppingCallback


class Strict(BaseModel):
    """No unknown keys, no silent conversion, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PromptSpec(Strict):
    system: str | None = Field(None, description="system message; null sends none")
    instruction: str | None = Field(None, min_length=1, description="null takes the task type's default")
    n_few_shot: int = Field(0, ge=0, le=32, description="worked examples from train put before each question")
    enable_thinking: bool = Field(False, description="what the chat template of a thinking model gets, always")
    shorten: Literal["keep_start", "keep_end", "keep_both"] | None = Field(
        None,
        description="what stays of a text that does not fit training.max_length; null refuses such rows; "
        "the answer is never cut",
    )


class SplitSpec(Strict):
    """How rows without a split of their own are divided: those of `all`, or of `train` where a split has no file."""

    validation: float = Field(0.1, ge=0, lt=1, description="share of the rows")
    test: float = Field(0.2, ge=0, lt=1, description="share of the rows")
    seed: int = 42
    group_by: str | None = Field(None, description="raw column whose equal values stay on one side")
    time_field: str | None = Field(None, description="raw column of dates: oldest rows train, newest test")
    near_duplicates: float | None = Field(
        0.8,
        gt=0.3,
        lt=1,
        description="texts at least this similar (Jaccard) stay on one side; null looks at equal ones",
    )

    @model_validator(mode="after")
    def _leaves_rows_for_train(self) -> SplitSpec:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation + test is {self.validation + self.test:g}: nothing is left for train")
        return self


class ExplodeSpec(Strict):
    """A step of a file: each element of a list becomes a row. `reading/row_steps.py` says what its columns are."""

    column: str = Field(min_length=1)


class MeltSpec(Strict):
    """A step of a file: each of some columns becomes a row."""

    columns: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] = Field(
        description="names, or a pattern like 'Food#*'"
    )
    entity: str = Field(min_length=1, description="new column for the name of the old one")
    value: str = Field(min_length=1, description="new column for its value")
    drop: list[str] = Field([], description="values that make no row: not mentioned; '' is an empty cell")

    @model_validator(mode="after")
    def _new_columns_differ(self) -> MeltSpec:
        if self.entity == self.value:
            raise ValueError(f"entity and value are both {self.value!r}: they are two columns")
        return self


class CollectSpec(Strict):
    """A step of a file: rows that follow each other with the same value become one row with a list."""

    by: str = Field(min_length=1, description="column whose equal values belong together, e.g. the text")
    into: str = Field(min_length=1, description="new column for the list")
    columns: list[str] = Field(min_length=1, description="columns that become keys of the list's objects")

    @model_validator(mode="after")
    def _is_not_collected_by_what_is_collected(self) -> CollectSpec:
        if self.by in (*self.columns, self.into):
            raise ValueError(f"by: {self.by!r} cannot be collected itself")
        return self


class FileSpec(Strict):
    """One raw file. A plain path stands for a file whose content says the rest."""

    path: str = Field(min_length=1, description="relative to the task folder")
    encoding: Literal["utf-8", "utf-16", "big5", "gb18030"] = "utf-8"
    format: Literal["json", "table", "lines", "excel", "parquet", "squad", "conll", "triplet"] | None = Field(
        None,
        description="null: what the content shows; lines: one text a line, column `text`; squad: questions about "
        "paragraphs, columns context, question, answers, id; conll: a token and its tag a line, columns tokens, tags; "
        "triplet: three lines an example, columns text, entity, sentiment",
    )
    delimiter: str | None = Field(None, min_length=1, max_length=1, description="null: what the content shows")
    columns: list[str] | None = Field(None, min_length=1, description="names for a table without a header row")
    quoting: bool = Field(True, description="false: quotes in a table are ordinary characters")
    sheet: str | None = Field(None, description="Excel sheet; null where only one holds rows")
    values: dict[str, str] = Field({}, description="columns with one value for the whole file")
    parallel: dict[str, str] = Field({}, description="column -> file that holds its values, line by line")
    explode: ExplodeSpec | None = Field(None, description="a list in a column -> a row for each of its elements")
    melt: MeltSpec | None = Field(None, description="a column for each aspect -> a row for each filled one of them")
    collect: CollectSpec | None = Field(None, description="rows that follow each other -> one row with a list")


def _as_file(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class DataSpec(Strict):
    files: dict[Literal["all", "train", "validation", "test"], list[Annotated[FileSpec, BeforeValidator(_as_file)]]] = (
        Field(min_length=1)
    )
    fields: dict[str, str] = Field(description="role in the task -> column in the raw files")
    decisions: str | None = Field(None, description="CSV (text, label, reason): what a person decided for a text")
    normalize: list[Literal[NORMALIZE_STEPS]] = Field([], description="declared steps that change the texts")
    split: SplitSpec = SplitSpec()

    @field_validator("files")
    @classmethod
    def _files_are_one_pool_or_named_splits(cls, files: dict[str, list[FileSpec]]) -> dict[str, list[FileSpec]]:
        if "all" in files and len(files) > 1:
            raise ValueError("use either 'all' or train/validation/test, not both")
        if "all" not in files and "train" not in files:
            raise ValueError("'train' is missing (or put everything under 'all')")
        if empty := [name for name, paths in files.items() if not paths]:
            raise ValueError(f"{', '.join(empty)} has no file")
        paths = [spec.path for specs in files.values() for spec in specs]
        if twice := sorted({path for path in paths if paths.count(path) > 1}):
            raise ValueError(f"{', '.join(twice)} is named twice")
        return files

    @property
    def raw_paths(self) -> list[str]:
        """Every file that the rows come from, parallel files and decisions too."""
        specs = [spec for specs in self.files.values() for spec in specs]
        paths = [path for spec in specs for path in (spec.path, *spec.parallel.values())]
        return paths + ([self.decisions] if self.decisions else [])


class EvaluationSpec(Strict):
    primary_metric: str | None = Field(None, description="null takes the task type's own")
    decoding: Literal["score", "generate", "compare"] = Field(
        "score",
        description="score: likelihood over the closed label set; generate: free text that is parsed; compare: "
        "likelihoods of each row's own answers",
    )
    target: float | None = Field(None, ge=0, le=1, description="the gate: primary metric to reach")
    n_few_shot: int = Field(
        4, ge=0, le=32, description="worked examples of the few_shot baseline; 0 leaves that baseline out"
    )
    must_beat: list[str] = Field([], description="the gate: what to beat by the paired test")


class RemoteSpec(Strict):
    """The user's own server, reached by ssh. Personal: no part of a run's identity, of cards or uploads."""

    host: str = Field(
        pattern=r"^([A-Za-z0-9_][\w.+-]*@)?[A-Za-z0-9_\[][\w.:\]-]*$",
        description="user@server, or a Host of ~/.ssh/config",
    )
    port: int | None = Field(None, ge=1, le=65535, description="null: 22, or what ~/.ssh/config says")
    ssh_key: str | None = Field(None, min_length=1, description="path of the private key; null: ssh's own choice")
    cuda_devices: str | None = Field(
        None,
        pattern=r"^(\d+|(GPU|MIG)-[\w/-]+)(,(\d+|(GPU|MIG)-[\w/-]+))*$",
        description="CUDA_VISIBLE_DEVICES: numbers or UUIDs, e.g. 0,1; null: all that are there",
    )
    workdir: str = Field("~/finetune-llm", min_length=1, description="folder on the server for all tasks")
    python: str | None = Field(None, min_length=1, description="interpreter there to use instead of uv")
    price_per_hour: float | None = Field(None, ge=0, description="what an hour costs, in any currency")


class ComputeSpec(Strict):
    target: Literal["local", "remote"] = Field("local", description="where training runs")
    remote: RemoteSpec | None = None

    @model_validator(mode="after")
    def _remote_has_a_server(self) -> ComputeSpec:
        if self.target == "remote" and self.remote is None:
            raise ValueError("target is remote, but no server is named: run scripts/remote.py setup --host user@server")
        return self


class HubSpec(Strict):
    repo_id: str | None = None
    private: bool = True
    license: str | None = Field(None, description="SPDX id of the adapter's licence, e.g. apache-2.0")
    dataset_repo_id: str | None = None
    dataset_license: str | None = Field(None, description="SPDX id of the data's licence, e.g. cc-by-4.0")
    personal_data_reviewed: bool = Field(False, description="true: a person saw each finding and the rows may go out")


class TaskDefinition(Strict):
    """task_definition.yaml. `task` is the Options model of the task type named in it."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
    description: str = ""
    language: Literal["zh-TW", "en"] = "zh-TW"
    task: Any
    prompt: PromptSpec = PromptSpec()
    data: DataSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    compute: ComputeSpec = ComputeSpec()
    hub: HubSpec = HubSpec()

    @property
    def task_type(self) -> Any:
        """The module of `tasklib/task_types/` that this task uses."""
        return task_types.load(self.task.type)

    @property
    def primary_metric(self) -> str:
        return self.evaluation.primary_metric or self.task_type.PRIMARY_METRIC


class BaseModelSpec(Strict):
    id: str = Field(min_length=1, description="Hub id, local path, or builtin:<name>")
    revision: str = "main"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"] = "auto"
    trust_remote_code: bool = False


class AdapterSpec(BaseModel):
    """`type` and PEFT's LoraConfig fields by their own names."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    type: Literal["lora", "qlora", "dora", "qdora", "full"] = "lora"
    autocast_adapter_dtype: bool = Field(
        True, description="PEFT's own argument: false keeps adapters of a bf16 model in bf16, faster on CPU"
    )

    train_experts: bool = Field(False, description="true: adapters on the routed experts of a MoE model too")
    train_router: bool = Field(False, description="true: adapters on the router of a MoE model too")

    @property
    def is_quantized(self) -> bool:
        return self.type in ("qlora", "qdora")

    @property
    def uses_dora(self) -> bool:
        return self.type in ("dora", "qdora")

    @property
    def peft_fields(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TrainingSpec(BaseModel):
    """Fields of TRL's SFTConfig, DPOConfig or ORPOConfig by their own names."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    num_train_epochs: float = Field(3, gt=0)
    learning_rate: float = Field(2e-4, gt=0)
    per_device_train_batch_size: int = Field(8, ge=1)
    max_length: int = Field(512, ge=8)
    seed: int = 42
    early_stopping_patience: int | None = Field(
        None, ge=1, description="evaluations without a better metric_for_best_model after which training stops"
    )
    early_stopping_threshold: float = Field(0.0, ge=0, description="how much better it must be")

    @property
    def trl_fields(self) -> dict[str, Any]:
        """What TRL's config gets."""
        return self.model_dump(exclude=EARLY_STOPPING_FIELDS)


class ImbalanceSpec(Strict):
    """What is done about rare labels; each step by itself, none by default."""

    sampling: Literal["natural", "class_balanced"] = Field(
        "natural", description="class_balanced: every label is drawn equally often in an epoch of the same length"
    )
    label_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None, description="weight of a row's answer tokens in the loss, by label; balanced: inverse frequency"
    )
    prior_correction: float = Field(
        0.0, ge=0, le=2, description="score: label probabilities are divided by (share in train) ** this"
    )


class GenerationSpec(Strict):
    max_new_tokens: int = Field(16, ge=1)
    batch_size: int = Field(16, ge=1, description="rows decoded at once by evaluate and predict")
    constrained: bool = Field(
        False, description="true: JSON answers are forced to follow their JSON Schema while they are generated"
    )


class RunConfig(Strict):
    """configs/<run>.yaml: everything that one run needs, with no inheritance."""

    schema_version: Literal[1]
    parent: str | None = None
    hypothesis: str | None = None
    base_model: BaseModelSpec
    method: Literal["sft", "dpo", "orpo"] = "sft"
    start_from: str | None = Field(None, description="a finished run whose adapter (or model) this one goes on from")
    preference_data: str | None = Field(
        None, description="dpo, orpo: pairs of make_preferences.py; null where the task's own rows are pairs"
    )
    adapter: AdapterSpec = AdapterSpec()
    training: TrainingSpec = TrainingSpec()
    imbalance: ImbalanceSpec = ImbalanceSpec()
    generation: GenerationSpec = GenerationSpec()


# What this project sets where the config says nothing; everything else keeps PEFT's and TRL's own default.
LORA_DEFAULTS = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "auto"}
TRAINING_DEFAULTS = {
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "logging_steps": 5,
    "save_strategy": "epoch",
    "save_total_limit": 2,  # the newest, to resume from, and the best or the one before
    "report_to": "none",
}
# With adapters, and of all weights; sources: references/methods/defaults.yaml (a test compares). A pair pushes the
# model away from an answer as well as towards one: with the learning rate of SFT it forgets to speak.
LEARNING_RATES = {"sft": (2e-4, 2e-5), "dpo": (5e-6, 5e-7), "orpo": (8e-5, 5e-6)}

# Keys that another key owns, or that must not come from a file: key -> what to write instead.
OWNED_ADAPTER_FIELDS = {
    "use_dora": "write adapter.type: dora (or qdora)",
    "task_type": "the script sets it",
    "peft_type": "write adapter.type",
    "base_model_name_or_path": "write base_model.id",
    "revision": "write base_model.revision",
    "inference_mode": "the script sets it",
}
OWNED_TRAINING_FIELDS = {
    "output_dir": "a run's folder is models/<run>/",
    "hub_token": "tokens come only from the environment or the Hub login",
    "push_to_hub": "upload with scripts/05_upload_hf.py",
    "hub_model_id": "write hub.repo_id in task_definition.yaml",
    "hub_private_repo": "write hub.private in task_definition.yaml",
    "hub_strategy": "upload with scripts/05_upload_hf.py",
    "hub_always_push": "upload with scripts/05_upload_hf.py",
    "hub_revision": "upload with scripts/05_upload_hf.py",
    "resume_from_checkpoint": "run scripts/03_train.py --resume",
    "trust_remote_code": "write base_model.trust_remote_code",
    "model_init_kwargs": "write base_model.dtype, base_model.attn_implementation or base_model.revision",
    "completion_only_loss": "only the answer is trained, always",
    "assistant_only_loss": "only the answer is trained, always",
    "dataset_text_field": "data.fields in task_definition.yaml",
    "dataset_kwargs": "the script prepares the rows",
    "chat_template_path": "the model's own chat template is used",
    "eos_token": "the model's own tokenizer is used",
    "pad_token": "the model's own tokenizer is used",
    "bf16": "write base_model.dtype: bfloat16",
    "do_train": "the script sets it",
    "do_eval": "the script sets it",
    "do_predict": "run scripts/04_evaluate.py",
    "eval_packing": "write training.packing: it packs the training rows alone",
    "packing_strategy": "rows are packed whole",
    "padding_free": "write training.packing",
    "truncation_mode": "an answer is never cut: raise training.max_length",
    "max_completion_length": "an answer is never cut: raise training.max_length",
    "is_encoder_decoder": "the script sets it",
    "padding_value": "the model's own tokenizer is used",
    "generate_during_eval": "run scripts/04_evaluate.py",
    "use_cpu": "hide the GPU with CUDA_VISIBLE_DEVICES= in the environment",
    "gradient_checkpointing": "write activation_checkpointing, its name since transformers 5",
    "gradient_checkpointing_kwargs": "write activation_checkpointing_kwargs, its name since transformers 5",
    "remove_unused_columns": "the script sets it",
    "disable_tqdm": "the script sets it",
}
RENAMED_TRAINING_FIELDS = {
    "max_seq_length": "its name is max_length",
    "warmup_ratio": "warmup_steps takes a fraction below 1",
    "evaluation_strategy": "its name is eval_strategy",
    "group_by_length": "write train_sampling_strategy: group_by_length",
    "tokenizer": "its name is processing_class, and the script sets it",
}


@functools.cache
def definition_model(task_type: str) -> type[TaskDefinition]:
    """TaskDefinition with `task` as the Options model of one task type, so that errors keep their key path, and with
    that type's decodings and baselines."""
    module, spec = task_types.load(task_type), evaluation_model(task_type)
    fields: dict[str, Any] = {"task": (module.Options, ...), "evaluation": (spec, spec())}
    return create_model(f"TaskDefinition_{task_type}", __base__=TaskDefinition, **fields)


@functools.cache
def evaluation_model(task_type: str) -> type[EvaluationSpec]:
    """EvaluationSpec as a task type has it: its first decoding and its own baselines are the defaults."""
    module = task_types.load(task_type)
    names = (*module.BASELINES, *BASELINES_OF_MODELS)
    fields: dict[str, Any] = {
        "decoding": (Literal[module.DECODINGS], _with_default(EvaluationSpec, "decoding", module.DECODINGS[0])),
        "must_beat": (
            list[Literal[names]],
            _with_default(EvaluationSpec, "must_beat", [*module.BASELINES, "zero_shot"]),
        ),
    }
    return create_model(f"EvaluationSpec_{task_type}", __base__=EvaluationSpec, **fields)


def _with_default(model: type[BaseModel], name: str, default: Any) -> Any:
    return Field(default, description=model.model_fields[name].description)


def load_definition(path: Path, shown_as: str = "task_definition.yaml") -> TaskDefinition:
    """Reads a task definition. Raises TaskError (exit 2, or 4 when absent) with every problem found."""
    return check_definition(documents.load_yaml(path, shown_as))


def edited_definition(
    text: str, shown: str, at: KeyPath, edit: Callable[[str, Any], str], changed: Callable[[dict], None], hint: str
) -> str:
    """The text of a task_definition.yaml after `edit` (text, data -> text), which must change the data exactly as
    `changed` changes them in place; every other byte is `edit`'s to keep. A byte order mark stays.

    Raises TaskError (exit 2, `not_edited`) at the key `at` where it would not: then a person must write it.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    text = text.removeprefix("\ufeff")
    before = documents.parse_yaml(text, shown)
    wanted = copy.deepcopy(before.data)
    changed(wanted)
    try:
        edited = edit(text, before.data)
        after = documents.parse_yaml(edited, shown)
        check_definition(after)
        if after.data == wanted:
            return mark + edited
    except (TaskError, KeyError, yaml.YAMLError):
        pass  # the edit did not fit the way this file is written
    message = f"{dotted(at)} is written in a way that is not edited here; nothing was changed"
    line = before.line_of(at)
    raise TaskError(ExitCode.USAGE, [Problem(code="not_edited", message=message, file=shown, line=line, hint=hint)])


def check_definition(document: Document) -> TaskDefinition:
    """Validates a parsed definition. Raises TaskError (exit 2) with every problem found."""
    _require_mapping(document)
    task = document.data.get("task")
    named = task.get("type") if isinstance(task, dict) else None
    if named not in task_types.names():
        problem = _problem(
            document,
            ("task", "type"),
            "unknown_task_type",
            f"task type {named!r} is not known",
            _legal(str(named), task_types.names()),
        )
        others = [p for p in _validate(TaskDefinition, document)[1] if p.field != "task"]
        raise TaskError(ExitCode.USAGE, [problem, *others])
    definition, problems = _validate(definition_model(named), document)
    problems += _not_in(problems, _definition_problems(named, document))
    if problems:
        raise TaskError(ExitCode.USAGE, problems)
    return definition


def load_config(path: Path, overrides: Sequence[str] = (), shown_as: str | None = None) -> RunConfig:
    """Reads a run config, applies `--set` overrides and defaults. Raises TaskError (exit 2, or 4 when absent)."""
    return check_config(documents.load_yaml(path, shown_as or f"configs/{path.name}"), overrides)


def check_config(document: Document, overrides: Sequence[str] = ()) -> RunConfig:
    """Validates a parsed config after `--set` overrides. Raises TaskError (exit 2) with every problem found."""
    _require_mapping(document)
    document = with_overrides(document, overrides)
    config, problems = _validate(RunConfig, document)
    problems += _not_in(problems, _passthrough_problems(document))
    if problems:
        raise TaskError(ExitCode.USAGE, problems)
    adapter = config.adapter
    if adapter.type != "full":
        adapter = AdapterSpec(**{**LORA_DEFAULTS, **adapter.model_dump()})
    given = config.training.model_dump(exclude_unset=True)
    rate = learning_rate(config.method, adapter.type)
    training = TrainingSpec(**{**TRAINING_DEFAULTS, "learning_rate": rate, **given})
    return config.model_copy(update={"adapter": adapter, "training": training})


def learning_rate(method: str, adapter_type: str) -> float:
    """The usual one of a method, where the config says nothing."""
    with_adapter, of_all_weights = LEARNING_RATES[method]
    return of_all_weights if adapter_type == "full" else with_adapter


def require_trainable(definition: TaskDefinition, config: RunConfig, *, has_validation: bool) -> None:
    """What needs both documents and the rows. Raises TaskError (exit 2) with every problem found."""
    fields, problems = config.training.trl_fields, []

    def refuse(code: str, message: str, field: str, hint: str) -> None:
        problems.append(Problem(code=code, message=message, field=field, hint=hint))

    is_paired, has_pairs = config.method != "sft", "chosen" in definition.task_type.FIELDS
    if config.method not in definition.task_type.METHODS:
        hint = _legal(config.method, definition.task_type.METHODS)
        refuse("illegal_value", f"task type {definition.task.type} has no method {config.method}", "method", hint)
    if is_paired and not has_pairs and config.preference_data is None:
        message = f"method {config.method} learns from pairs of answers"
        hint = "train this config with method: sft first, make pairs of that run (scripts/make_preferences.py); then "
        hint += "write a second config with method, start_from and preference_data"
        refuse("missing_key", message, "preference_data", hint)
    if config.preference_data is not None and (not is_paired or has_pairs):
        why = "the rows of this task are pairs already" if is_paired else "method sft learns from the task's own rows"
        refuse("unused_key", why, "preference_data", "remove it")
    if is_paired:
        spec = config.imbalance
        for key, is_set in (("sampling", spec.sampling != "natural"), ("label_weights", spec.label_weights)):
            if is_set:
                message = f"method {config.method} learns from pairs, which have no label to balance"
                refuse("not_with_pairs", message, f"imbalance.{key}", "remove it")

    wanted = fields.get("metric_for_best_model")
    legal = ["eval_loss", *definition.task_type.PRIMARY_METRICS]
    if wanted is not None and wanted not in (*legal, "loss", *(f"eval_{name}" for name in legal[1:])):
        refuse("illegal_value", f"got {wanted!r}", "training.metric_for_best_model", _legal(wanted, legal))
    if config.training.early_stopping_patience and not fields.get("load_best_model_at_end"):
        hint = "set training.load_best_model_at_end: true, or remove early_stopping_patience"
        refuse("missing_key", "early stopping keeps the best checkpoint", "training.load_best_model_at_end", hint)
    follows = fields.get("load_best_model_at_end") or wanted or config.training.early_stopping_patience
    if follows and not has_validation:
        hint = "set data.split.validation above 0 and convert again, or remove the keys that need an evaluation"
        refuse("no_validation_rows", "there are no validation rows to choose by", "training", hint)
    spec = config.imbalance
    if fields.get("packing") and (spec.sampling != "natural" or spec.label_weights is not None):
        refuse(
            "not_with_packing", "packed rows cannot be drawn or weighted one by one", "training.packing", "remove it"
        )
    if problems:
        raise TaskError(ExitCode.USAGE, problems)


def answer_schema(definition: TaskDefinition, config: RunConfig) -> dict[str, Any] | None:
    """The JSON Schema that answers are forced to follow; None without `generation.constrained`.

    Raises TaskError (exit 2) for a task whose answers are no JSON, or where the model thinks before it answers."""
    if not config.generation.constrained:
        return None
    made = getattr(definition.task_type, "answer_schema", None)
    found = made(definition.task) if made else None
    message = None
    if found is None:
        message = f"answers of task type {definition.task.type} follow no JSON Schema"
    elif definition.prompt.enable_thinking:
        message = "prompt.enable_thinking: what is thought before the answer is no JSON"
    if message:
        hint = "remove generation.constrained"
        problem = Problem(code="not_constrainable", message=message, field="generation.constrained", hint=hint)
        raise TaskError(ExitCode.USAGE, [problem])
    return found


def _not_in(problems: list[Problem], others: Iterable[Problem]) -> list[Problem]:
    """Those of `others` whose key has no problem yet, so that one mistake is told once."""
    fields = {problem.field for problem in problems}
    return [problem for problem in others if problem.field not in fields]


def _definition_problems(task_type: str, document: Document) -> list[Problem]:
    """What needs the task type: fields, decoding, metric names. Looks at the data as they are, valid or not."""
    module, problems = task_types.load(task_type), []
    data, evaluation = (_mapping(document.data.get(key)) for key in ("data", "evaluation"))
    fields = _mapping(data.get("fields"))
    problems += _field_problems(task_type, module.FORMS, fields, document) if "fields" in data else []
    asks = _nearest_form(module.FORMS, fields).asks or _mapping(document.data.get("prompt")).get("instruction")
    if fields and not asks:
        message, hint = "rows of such fields do not say what is asked", "write what the model is to do with each text"
        problems.append(_problem(document, ("prompt", "instruction"), "missing_key", message, hint))
    if _mapping(document.data.get("prompt")).get("shorten") and not module.MAY_SHORTEN:
        message = f"a text of task type {task_type} may not be cut: its answer is about all of it"
        hint = "remove it" + ("; long texts: task.windows" if "windows" in module.Options.model_fields else "")
        problems.append(_problem(document, ("prompt", "shorten"), "illegal_value", message, hint))
    if data.get("decisions") and "label" not in module.FIELDS:
        message = f"task type {task_type} has no single label that a person could decide on"
        problems.append(_problem(document, ("data", "decisions"), "illegal_value", message, "correct the raw rows"))
    if set(SPLITS) <= set(_mapping(data.get("files"))):
        message = "it does nothing: train, validation and test have files of their own"
        unused = [key for key in _mapping(data.get("split")) if key not in NOT_FOR_DRAWING]
        problems += [_problem(document, ("data", "split", key), "unused_key", message, "remove it") for key in unused]
    metric = evaluation.get("primary_metric")
    if metric is not None and metric not in module.PRIMARY_METRICS:
        at, legal = ("evaluation", "primary_metric"), _legal(str(metric), module.PRIMARY_METRICS)
        problems.append(_problem(document, at, "illegal_value", f"got {metric!r}", legal))
    return problems


def _nearest_form(forms: Sequence[Any], fields: dict[str, Any]) -> Any:
    """The form that most of the mapped roles belong to, and of whose required roles the fewest are missing."""
    return max(
        forms, key=lambda form: len({*form.required, *form.optional} & {*fields}) - len({*form.required} - {*fields})
    )


def _field_problems(task_type: str, forms: Sequence[Any], fields: dict[str, Any], document: Document) -> list[Problem]:
    """What keeps `data.fields` from being one of the forms of a task type; judged by the form that is nearest."""
    form = _nearest_form(forms, fields)
    known, problems = (*form.required, *form.optional), []
    others = [" + ".join(other.required) for other in forms if other is not form]
    instead = f"; or map {'; or '.join(others)}" if others else ""
    for role in form.required:
        if role not in fields:
            message, hint = f"data.fields has no {role!r}", f"add '{role}: <column in the raw file>'{instead}"
            problems.append(_problem(document, ("data", "fields"), "missing_field", message, hint))
    for role in fields:
        if role not in known:
            message = f"{role!r} is no field of task type {task_type}"
            if any(role in (*other.required, *other.optional) for other in forms):
                message = f"{role!r} does not go together with {', '.join(r for r in fields if r in known)}"
            hint = _legal(role, known) + instead
            problems.append(_problem(document, ("data", "fields", role), "unknown_key", message, hint))
    return problems


def _passthrough_problems(document: Document) -> list[Problem]:
    """Checks the keys that go to PEFT and TRL under their own names."""
    problems, method = [], document.data.get("method", "sft")
    trl_fields = TRL_FIELDS.get(method if isinstance(method, str) else "", SFT_FIELDS)
    is_full = _mapping(document.data.get("adapter")).get("type") == "full"
    sections = (
        ("adapter", LORA_FIELDS, OWNED_ADAPTER_FIELDS, {}, set(AdapterSpec.model_fields)),
        ("training", trl_fields, OWNED_TRAINING_FIELDS, RENAMED_TRAINING_FIELDS, EARLY_STOPPING_FIELDS),
    )
    for section, fields, owned, renamed, own_keys in sections:
        values = document.data.get(section)
        if not isinstance(values, dict):
            continue
        for key, value in values.items():
            at = (section, key)
            if section == "adapter" and is_full and key != "type":
                message = f"adapter.{key} has no meaning with type: full"
                problems.append(_problem(document, at, "owned_key", message, "remove it"))
            elif key in owned:
                problems.append(_problem(document, at, "owned_key", f"{section}.{key} may not be set here", owned[key]))
            elif key in renamed:
                problems.append(_problem(document, at, "renamed_key", f"{section}.{key} is gone", renamed[key]))
            elif key not in fields and key not in own_keys:
                legal = [name for name in fields if name not in owned] + sorted(own_keys)
                message, of_method = f"unknown key {key!r}", [m for m in METHODS if key in TRL_FIELDS[m]]
                if section == "training" and of_method:
                    message = f"{key!r} belongs to method {' and '.join(of_method)}, and this config has {method}"
                problems.append(_problem(document, at, "unknown_key", message, _nearest(key, legal)))
            elif key in fields and not _has_kind(value, fields[key]):
                problems.append(
                    _problem(
                        document,
                        at,
                        "illegal_type",
                        f"got {value!r} ({_kind(value)})",
                        f"legal types: {', '.join(fields[key])}",
                    )
                )
    return problems


def _validate(model: type[BaseModel], document: Document) -> tuple[Any, list[Problem]]:
    try:
        return model.model_validate(document.data), []
    except ValidationError as error:
        return None, [_from_pydantic(document, model, item) for item in error.errors()]


def _from_pydantic(document: Document, model: type[BaseModel], item: Any) -> Problem:
    at = tuple(part for part in item["loc"] if part != "[key]")
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        legal = _legal_keys(model, at[:-1])
        return _problem(document, at, "unknown_key", f"unknown key {at[-1]!r}", _legal(str(at[-1]), legal))
    if kind == "missing":
        return _problem(document, at, "missing_key", "this key is missing", f"add {at[-1]!r}")
    if kind == "literal_error":
        legal = item["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return _problem(document, at, "illegal_value", f"got {value!r}", _legal(str(value), legal))
    message = item["msg"].removeprefix("Value error, ")
    got = "" if kind == "value_error" and isinstance(value, dict | BaseModel) else f", got {_short(value)}"
    return _problem(document, at, "illegal_value", f"{message}{got}", "correct this value")


def _legal_keys(model: type[BaseModel], at: KeyPath) -> list[str]:
    """The keys that may stand below `at`."""
    current: Any = model
    for part in at:
        while typing.get_origin(current) is Annotated:
            current = typing.get_args(current)[0]
        field = current.model_fields.get(part) if hasattr(current, "model_fields") else None
        inside = typing.get_args(current)  # of list[item] or dict[key, item]
        current = field.annotation if field is not None else inside[-1] if inside else None
    while typing.get_origin(current) is Annotated:
        current = typing.get_args(current)[0]
    is_model = isinstance(current, type) and issubclass(current, BaseModel)
    return list(current.model_fields) if is_model else []


def with_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """A copy of the document with each `a.b=value` set; the value follows the rules of the YAML file."""
    data, problems, overridden = copy.deepcopy(document.data), [], set()
    for override in overrides:
        key, separator, text = override.partition("=")
        parts = key.strip().split(".")
        if not separator or not all(parts):
            problems.append(
                Problem(
                    code="usage",
                    message=f"--set {override!r} is not of the form key=value",
                    hint="e.g. --set training.learning_rate=1e-4",
                )
            )
            continue
        target = data
        for part in parts[:-1]:
            target = target.setdefault(part, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            problems.append(
                Problem(
                    code="usage",
                    message=f"--set {key}: {'.'.join(parts[:-1])} has no keys",
                    field=key,
                    hint="name a key of the config",
                )
            )
            continue
        try:
            target[parts[-1]] = documents.parse_scalar(text)
        except TaskError as error:
            problems += [dataclasses.replace(problem, field=key, line=None) for problem in error.problems]
        overridden.add(tuple(parts))
    if problems:
        raise TaskError(ExitCode.USAGE, problems)
    return Document(document.path, data, document.lines, frozenset(overridden))


def _require_mapping(document: Document) -> None:
    if not isinstance(document.data, dict):
        problem = Problem(
            code="yaml_not_a_mapping",
            message="the file must hold keys and values",
            file=document.path,
            line=1,
            hint="see the README of the task for an example",
        )
        raise TaskError(ExitCode.USAGE, [problem])


def _problem(document: Document, at: KeyPath, code: str, message: str, hint: str) -> Problem:
    file, line = ("--set", None) if _is_overridden(document, at) else (document.path, document.line_of(at))
    return Problem(code=code, message=message, file=file, line=line, field=dotted(at) or None, hint=hint)


def _is_overridden(document: Document, at: KeyPath) -> bool:
    """Whether what stands at `at` came from --set: the value, or a section that the file does not have."""
    return any(
        at[: len(key)] == key or (key[: len(at)] == at and at not in document.lines) for key in document.overridden
    )


def _mapping(value: object) -> dict[str, Any]:
    """`value` where it is a mapping; what is none has a problem of its own."""
    return value if isinstance(value, dict) else {}


def _nearest(value: str, legal: Iterable[str]) -> str:
    near = difflib.get_close_matches(value, list(legal), n=1)
    return f"did you mean {near[0]!r}?" if near else "see the fields of TRL's SFTConfig and PEFT's LoraConfig"


def _legal(value: str, legal: Iterable[str]) -> str:
    legal = list(legal)
    near = difflib.get_close_matches(value, legal, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + "legal: " + ", ".join(legal)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return type(value).__name__


def _has_kind(value: object, legal: Sequence[str]) -> bool:
    if "any" in legal or _kind(value) in legal:
        return not (isinstance(value, float) and not math.isfinite(value))
    return isinstance(value, int) and not isinstance(value, bool) and "float" in legal


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
