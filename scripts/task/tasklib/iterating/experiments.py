"""One experiment is one whole config that differs from its parent's in one thing.

Two changes at once leave nobody knowing which of them did it, and a gain of one hides a loss of the other. Keys that
only make sense together (r and lora_alpha, batch size and accumulation) count as one change; so does changed data.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tasklib import documents, schema
from tasklib.exit_codes import ExitCode
from tasklib.paths import TaskPaths
from tasklib.schema import RunConfig, TaskDefinition
from tasklib.scoring import evaluation
from tasklib.summary import Problem, TaskError
from tasklib.texts import EXPERIMENT
from tasklib.training import runs

# Keys that are turned together: name -> patterns of key paths. A key that matches none is a change by itself.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "method": (
        r"method|start_from|preference_data",
        r"training\.(beta|loss_type|loss_weights|label_smoothing)",
    ),
    "base model": (r"base_model\..+",),
    "learning rate": (r"training\.(learning_rate|lr_scheduler_\w+|warmup_steps)",),
    "length of training": (
        r"training\.(num_train_epochs|max_steps|early_stopping_\w+|load_best_model_at_end|metric_for_best_model)",
        r"training\.(greater_is_better|eval_strategy|eval_steps|save_strategy|save_steps)",
    ),
    "batch": (r"training\.(per_device_train_batch_size|gradient_accumulation_steps)",),
    "adapter": (
        r"adapter\.(r|lora_alpha|target_modules|rank_pattern|alpha_pattern|use_rslora|exclude_modules|modules_to_save)",
        r"adapter\.(layers_to_transform|layers_pattern|target_parameters|train_experts|train_router)",
    ),
    "adapter type": (r"adapter\.(type|autocast_adapter_dtype)",),
    "regularisation": (
        r"adapter\.lora_dropout",
        r"training\.(weight_decay|neftune_noise_alpha|label_smoothing_factor)",
    ),
    "imbalance": (r"imbalance\..+",),
    "generation": (r"generation\.max_new_tokens",),
}
# Keys that change no result, or nothing but where time and memory go.
FREE = re.compile(
    r"parent|hypothesis|generation\.batch_size|training\.(report_to|run_name|logging_\w+|project|save_total_limit"
    r"|per_device_eval_batch_size|eval_accumulation_steps|dataloader_\w+|activation_checkpointing\w*|trackio_space_id)"
)
DATA = "data"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_RESERVED = {"baselines", "served", "comparisons"}  # folders of benchmarks/ that are no runs


@dataclass(frozen=True)
class Change:
    """One key with its value before and after; `group` names what it is turned together with, None for free keys."""

    key: str
    old: Any
    new: Any
    group: str | None

    def to_text(self) -> str:
        return f"{self.key}: {_shown(self.old)} → {_shown(self.new)}"


@dataclass(frozen=True)
class Experiment:
    """A config that is ready to be written. `data_changes` are `key: old -> new` of the definition and the rows since
    the parent was trained."""

    name: str
    parent: str
    hypothesis: str
    changes: list[Change]
    data_changes: list[str]
    config: RunConfig
    text: str

    @property
    def groups(self) -> list[str]:
        """What changes, each thing once."""
        found = [change.group for change in self.changes if change.group]
        return list(dict.fromkeys([*found, *([DATA] if self.data_changes else [])]))


def plan(
    paths: TaskPaths,
    definition: TaskDefinition,
    *,
    parent: str,
    name: str,
    hypothesis: str,
    overrides: Sequence[str],
    allow_several: bool = False,
) -> Experiment:
    """The experiment, checked and not yet written. Raises TaskError: exit 4 without the parent's config, exit 2 for a
    name that is taken, an illegal value, nothing that changes, or several things that change at once."""
    document = documents.load_yaml(_config_file(paths, parent), f"configs/{parent}.yaml")
    before = schema.check_config(document)
    problems = _name_problems(paths, name)
    if not hypothesis.strip():
        problems.append(_usage("--hypothesis", "it is empty", "say what you expect to change, and why"))
    changed = schema.with_overrides(document, overrides)
    try:
        after = schema.check_config(document, overrides)
    except TaskError as error:
        raise TaskError(ExitCode.USAGE, [*problems, *error.problems]) from None
    data = {**changed.data, "parent": parent, "hypothesis": hypothesis.strip()}
    after = after.model_copy(update={"parent": parent, "hypothesis": hypothesis.strip()})
    made = Experiment(
        name=name,
        parent=parent,
        hypothesis=hypothesis.strip(),
        changes=changes(before, after),
        data_changes=data_changes(paths, definition, parent),
        config=after,
        text=_rendered(definition, name, data),
    )
    problems += _change_problems(made, allow_several=allow_several)
    problems += _same_problems(paths, made)
    if problems:
        raise TaskError(ExitCode.USAGE, problems)
    return made


def changes(before: RunConfig, after: RunConfig) -> list[Change]:
    """Every leaf in which two resolved configs differ, `parent` and `hypothesis` left out."""
    old, new = _leaves(before.model_dump(mode="json")), _leaves(after.model_dump(mode="json"))
    keys = [key for key in dict.fromkeys([*old, *new]) if key not in ("parent", "hypothesis")]
    found = [Change(k, old.get(k), new.get(k), group_of(k)) for k in keys if old.get(k) != new.get(k)]
    if any(change.key == "method" for change in found):  # each method has a scale of learning rates of its own
        found = [replace(c, group="method") if c.group == "learning rate" else c for c in found]
    return found


def group_of(key: str) -> str | None:
    """The name of what a key is turned together with; its own name where it stands alone, None where it is free."""
    if FREE.fullmatch(key):
        return None
    named = (name for name, patterns in GROUPS.items() if any(re.fullmatch(p, key) for p in patterns))
    return next(named, key)


def data_changes(paths: TaskPaths, definition: TaskDefinition, parent: str) -> list[str]:
    """In what the definition and the processed rows differ from those that the parent was trained on; nothing where it
    was not trained."""
    record = runs.read_record(paths.run(parent))
    if record is None:
        return []
    config = RunConfig.model_validate(record.config)
    then, now = record.identity["parts"], runs.identity(config, definition, paths)["parts"]
    kept = ("definition", "processed")
    return runs.differences({k: then.get(k) for k in kept}, {k: now.get(k) for k in kept})


def write(paths: TaskPaths, made: Experiment) -> Path:
    """Writes configs/<name>.yaml, which must not exist: two calls at once cannot overwrite each other."""
    path = _config_file(paths, made.name)
    with path.open("x", encoding="utf-8", newline="\n") as stream:
        stream.write(made.text)
    return path


def _config_file(paths: TaskPaths, name: str) -> Path:
    return paths.root / "configs" / f"{name}.yaml"


def _name_problems(paths: TaskPaths, name: str) -> list[Problem]:
    is_made_by_scripts = evaluation.NO_RUN_OF_ITS_OWN.search(name) or ".old-" in name or name.endswith(".sweep")
    if not NAME.fullmatch(name) or is_made_by_scripts or name in _RESERVED:
        hint = "lower case, digits, dots and hyphens; not *.limitN, *.sN, *.tN, nor " + ", ".join(sorted(_RESERVED))
        return [_usage("--name", f"{name!r} cannot name a run", hint)]
    if _config_file(paths, name).exists() or paths.run(name).exists():
        hint = "choose another name: an experiment is never overwritten"
        return [_usage("--name", f"there is already a run {name!r}", hint)]
    return []


def _change_problems(made: Experiment, *, allow_several: bool) -> list[Problem]:
    """Nothing that changes, or several unrelated things."""
    if not made.groups:
        free = ", ".join(change.key for change in made.changes)
        message = f"only {free} changes, which changes no result" if free else "nothing changes"
        hint = "give --set KEY=VALUE; without it, change the data first (then the data are the change)"
        return [Problem(code="nothing_changes", message=message, field="--set", hint=hint)]
    if len(made.groups) == 1 or allow_several:
        return []
    lines = [f"{name}: {', '.join(c.to_text() for c in made.changes if c.group == name)}" for name in made.groups]
    lines = [line if not line.startswith(f"{DATA}: ") else _data_line(made) for line in lines]
    message = f"{len(made.groups)} things change at once: " + "; ".join(lines)
    hint = "one experiment each, or nobody knows which of them did it; --allow-several if they belong together"
    return [Problem(code="several_changes", message=message, field="--set", hint=hint)]


def _data_line(made: Experiment) -> str:
    first = made.data_changes[0]
    more = f" and {len(made.data_changes) - 1} more" if len(made.data_changes) > 1 else ""
    return f"{DATA} since {made.parent} was trained: {first}{more}"


def _same_problems(paths: TaskPaths, made: Experiment) -> list[Problem]:
    """Another config that asks for the same: its result is known or on its way. On changed data it is another one."""
    if made.data_changes:
        return []
    for path in sorted((paths.root / "configs").glob("*.yaml")):
        try:
            other = schema.load_config(path)
        except TaskError:
            continue
        if path.stem != made.parent and not changes(other, made.config):
            hint = f"look at benchmarks/{path.stem}/, or change something else"
            message = f"configs/{path.name} asks for the same"
            return [Problem(code="same_experiment", message=message, file=f"configs/{path.name}", hint=hint)]
    return []


def known_runs(paths: TaskPaths) -> list[str]:
    """Names of all configs."""
    return sorted(path.stem for path in (paths.root / "configs").glob("*.yaml"))


def require_config(paths: TaskPaths, name: str, flag: str) -> None:
    """Raises TaskError (exit 4) where there is no configs/<name>.yaml, naming the nearest."""
    known = known_runs(paths)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = (f"did you mean {near[0]!r}? " if near else "") + f"configs: {', '.join(known) or 'none yet'}"
    problem = Problem(code="no_config", message=f"there is no configs/{name}.yaml", field=flag, hint=hint)
    raise TaskError(ExitCode.PREREQUISITE, [problem])


def _rendered(definition: TaskDefinition, name: str, data: dict[str, Any]) -> str:
    first = {"schema_version": data["schema_version"], "parent": data["parent"], "hypothesis": data["hypothesis"]}
    body = yaml.safe_dump({**first, **data}, sort_keys=False, allow_unicode=True, width=110)
    return EXPERIMENT[definition.language]["header"].format(name=name, parent=data["parent"]) + body


def _leaves(value: Any, at: str = "") -> dict[str, Any]:
    """Key path -> value of everything that is no mapping; an empty mapping is a value."""
    if not isinstance(value, dict) or not value:
        return {at: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _leaves(inner, f"{at}.{key}" if at else str(key))
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _usage(field: str, message: str, hint: str) -> Problem:
    return Problem(code="usage", message=message, field=field, hint=hint)
