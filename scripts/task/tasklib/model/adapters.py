"""Where adapters go: one decision, from the model's modules and never from its name, and a check that it came true."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.model import model_parts, models, peft_reading
from tasklib.model.model_parts import (
    Part,
    Role,
    Target,
    ends_with,
    module_target,
    parameter_names,
    parameter_target,
    starred,
    suffixes,
)
from tasklib.model.peft_reading import problem
from tasklib.schema import AdapterSpec, RunConfig
from tasklib.summary import Problem, TaskError

WHY_LEFT_OUT: dict[str, str] = {
    "expert": "routed experts stay frozen unless adapter.train_experts is true",
    "selector": "chooses which tokens are attended to, without a gradient: an adapter there would learn nothing",
    "router": "the router stays frozen unless adapter.train_router is true",
    "head": "output head: only where adapter.target_modules names it",
    "embedding": "embedding: only where adapter.target_modules names it",
    "outside": "not part of the text model",
    "other": "not a linear layer",
}
FLAGS = {"expert": "train_experts", "router": "train_router"}
INIT = "init_lora_weights"
DATA_DRIVEN_INITS = ("eva", "corda", "lora_ga")

# LoraConfig fields that PEFT's adapters on a bare parameter (lora.ParamWrapper) refuse; a test compares them with PEFT.
NOT_ON_PARAMETERS = (
    "lora_bias",
    "fan_in_fan_out",
    "velora_config",
    "kasa_config",
    "monteclora_config",
    "alora_invocation_tokens",
    "arrow_config",
    "use_bdlora",
    "use_qalora",
)


@dataclass(frozen=True)
class LeftOut:
    name: str
    reason: str


@dataclass(frozen=True)
class Placement:
    """The decision: `targets` get adapters, `left_out` are the other weight matrices, each with its reason.

    `fields` are LoraConfig's `target_modules` and `target_parameters`; `n_trainable` counts the elements that training
    will move: those of the adapters and of `modules_to_save`, or all of them for `full`.
    """

    targets: tuple[Target, ...]
    left_out: tuple[LeftOut, ...]
    n_trainable: int
    fields: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()


def place(model: Any, spec: AdapterSpec) -> Placement:
    """Decides where the adapters of `spec` go. Changes nothing; the model may lie on the meta device.

    `target_modules: auto` (or absent) takes every linear layer of the text model but its head (Dettmers et al. 2023,
    section 4), with router and routed experts only when asked; anything else follows PEFT's own matching.
    Raises TaskError (exit 2) with every problem.
    """
    if spec.type == "full":
        return Placement((), (), sum(p.numel() for p in model.parameters()))
    parts = model_parts.find(model)
    is_auto = spec.peft_fields.get("target_modules", "auto") == "auto"
    problems = _general_problems(spec, parts)
    choice = (_chosen if is_auto else _named)(model, spec, parts)
    problems += choice.problems + _parameter_problems(spec, parts, choice.targets)
    if not choice.targets and not problems:
        got = "auto" if is_auto else repr(spec.peft_fields["target_modules"])
        problems.append(_no_target(parts, f"{got} matches nothing in this model"))
    if problems:
        raise TaskError(ExitCode.USAGE, problems)
    keys = ("target_modules", "target_parameters")
    return Placement(
        tuple(choice.targets),
        tuple(_by_tower(parts, choice.left_out)),
        peft_reading.n_trainable(model, choice.config, choice.targets),
        _as_fields(model, choice.targets) if is_auto else {key: spec.peft_fields.get(key) for key in keys},
        tuple(_warnings(spec, parts, () if is_auto else choice.targets)),
    )


def attach(model: Any, config: RunConfig) -> Any:
    """The model with adapters where `place` decided, everything else frozen; `full` gets the model back as it is.

    Raises TaskError (exit 2) for what the config asks and PEFT cannot do, RuntimeError (a bug) when PEFT adapted
    anything else than what was decided.
    """
    from peft import get_peft_model

    spec = config.adapter
    if spec.type == "full":
        return model
    placement = place(model, spec)
    lora = peft_reading.lora_config(spec, placement.fields)
    if spec.is_quantized:
        model = _prepare_quantized(model, bool((config.training.model_extra or {}).get("activation_checkpointing")))
    try:
        model = get_peft_model(model, lora, autocast_adapter_dtype=spec.autocast_adapter_dtype)
    except (ValueError, TypeError, ImportError) as error:
        raise TaskError(ExitCode.USAGE, [peft_reading.refused_by_peft(error)]) from error
    peft_reading.require_as_decided(model, placement.targets, lora)
    return model


def continued(model: Any, config: RunConfig, folder: Path) -> Any:
    """The model with the adapter that an earlier run left in `folder`, to be trained on. Raises TaskError (exit 4) when
    the files do not hold all of it."""
    if config.adapter.is_quantized:
        model = _prepare_quantized(model, bool((config.training.model_extra or {}).get("activation_checkpointing")))
    return models.with_adapter(model, config, folder, is_trainable=True)


def describe(placement: Placement, model: Any) -> list[str]:
    """Lines for the log: adapters by kind of module, what was left out and why, the share that is trained.

    `model` is what `attach` returned, or the base model, also on the meta device.
    """
    lines = [f"adapters on {kind}" for kind in _kinds(target.name for target in placement.targets)]
    for reason in dict.fromkeys(item.reason for item in placement.left_out):
        kinds = _kinds(item.name for item in placement.left_out if item.reason == reason)
        lines.append(f"none on {'; '.join(kinds)} ({reason})")
    if hasattr(model, "get_nb_trainable_parameters"):  # PEFT's own count knows packed 4-bit weights
        trainable, total = model.get_nb_trainable_parameters()
    else:
        trainable, n_base = placement.n_trainable, sum(p.numel() for p in model.parameters())
        total = n_base + trainable if placement.targets else n_base
    lines.append(f"trained: {trainable:,} of {total:,} parameters ({trainable / total:.2%})")
    return lines + [f"warning: {warning.to_text()}" for warning in placement.warnings]


# The decision: auto, or by the user's own names.


@dataclass(frozen=True)
class _Choice:
    """`config` is the LoraConfig as PEFT will read it on this model."""

    targets: list[Target]
    left_out: list[LeftOut]
    config: Any
    problems: list[Problem]


def _chosen(model: Any, spec: AdapterSpec, parts: Sequence[Part]) -> _Choice:
    """auto: every linear layer of the text model, router and experts when asked, and the user's target_parameters."""
    config = peft_reading.lora_config(spec, {"target_modules": []})
    own, problems = _own_parameters(model, spec, parts, config)
    targets, left_out = list(own.values()), []
    readings = {leaf: peft_reading.reading(model, leaf) for leaf in {part.leaf for part in parts}}
    for part in parts:
        if part.target.name in own or part.weight in own:
            continue
        verdict = _verdict(part, spec, config, readings[part.leaf])
        targets.append(verdict) if isinstance(verdict, Target) else left_out.append(LeftOut(part.target.name, verdict))
    return _Choice(targets, left_out, config, problems)


def _verdict(part: Part, spec: AdapterSpec, config: Any, reading: str) -> Target | str:
    """The adapter that the part gets under auto, or why it gets none. `config` is changed: only its filters count."""
    from peft.tuners.tuners_utils import check_target_module_exists

    if part.role != "linear" and not (part.role in FLAGS and getattr(spec, FLAGS[part.role])):
        return WHY_LEFT_OUT[part.role]
    if not part.can_adapt:
        return "bias or statistics, not a weight matrix"
    config.target_modules = {part.leaf}
    if not check_target_module_exists(config, part.module):
        return "left out by adapter.exclude_modules, layers_to_transform or modules_to_save"
    if part.target.is_parameter or reading == "module":
        return part.target
    if reading == "refused":
        return "refused by PEFT: the layer's kernel reads the weight directly"
    obstacles = _obstacles(spec, packed=True)
    if obstacles:
        return f"PEFT takes its name for that of the experts; as a bare parameter it has no {', '.join(obstacles)}"
    return Target(part.weight, True, part.target.in_features, part.target.out_features)


def _named(model: Any, spec: AdapterSpec, parts: Sequence[Part]) -> _Choice:
    """The user's own target_modules: what PEFT will make of them on this model, found by PEFT's own functions."""
    from peft.tuners.tuners_utils import check_target_module_exists

    config = peft_reading.as_peft_reads(model, peft_reading.lora_config(spec, {}))
    own, problems = _own_parameters(model, spec, parts, config)
    targets = list(own.values())
    for name, module in model.named_modules():
        if not name or not check_target_module_exists(config, name):
            continue
        if hasattr(module, "weight"):
            targets.append(module_target(name, module))
        else:
            problems.append(_no_target(parts, f"{name} is a block of layers, not a layer"))
    problems += _unmatched_entries(model, spec, parts)
    names, roles = {target.name for target in targets}, _roles(parts)
    for role, flag in FLAGS.items():
        if getattr(spec, flag) and role in roles.values() and role not in {roles.get(name) for name in names}:
            message = f"got true, but adapter.target_modules names no {role} of this model"
            problems.append(problem(flag, message, "write adapter.target_modules: auto, or remove this key"))
    others = [part for part in parts if part.target.name not in names and part.weight not in names]
    left_out = [LeftOut(part.target.name, "not named by adapter.target_modules") for part in others]
    return _Choice(targets, left_out, config, problems)


def _own_parameters(
    model: Any, spec: AdapterSpec, parts: Sequence[Part], config: Any
) -> tuple[dict[str, Target], list[Problem]]:
    """Targets of `target_parameters` (matched by the end of the name, as PEFT does), and entries without a match."""
    names, own, problems = parameter_names(model), {}, []
    for entry in spec.peft_fields.get("target_parameters") or []:
        if not any(ends_with(name, entry) for name in names):
            legal = sorted({starred(part.weight) for part in parts})
            problems.append(problem("target_parameters", f"{entry!r} matches no parameter", _nearest(entry, legal)))
    for name in names:
        if not any(ends_with(name, entry) for entry in config.target_parameters or []):
            continue
        module, shape = model.get_submodule(name.rpartition(".")[0]), tuple(model.get_parameter(name).shape)
        if len(shape) in (2, 3):
            own[name] = parameter_target(name, shape, getattr(module, "is_transposed", False))
        else:
            problems.append(problem("target_parameters", f"{name} has {len(shape)} dimensions", "name a weight matrix"))
    return own, problems


def _as_fields(model: Any, targets: Iterable[Target]) -> dict[str, Any]:
    """LoraConfig's fields for the targets, by names that match nothing else."""
    modules = [target.name for target in targets if not target.is_parameter]
    parameters = [target.name for target in targets if target.is_parameter]
    return {
        "target_modules": suffixes(modules, (name for name, _ in model.named_modules())),
        "target_parameters": suffixes(parameters, parameter_names(model)) or None,
    }


# What is wrong with a config, and what one should know about it.


def _general_problems(spec: AdapterSpec, parts: Sequence[Part]) -> list[Problem]:
    """What cannot be, whatever is chosen."""
    adaptable, problems, init = {part.role for part in parts if part.can_adapt}, [], spec.peft_fields.get(INIT)
    for role, flag in FLAGS.items():
        if getattr(spec, flag) and role not in adaptable:
            problems.append(problem(flag, f"got true, but this model has no {role} to adapt", "remove this key"))
    if spec.peft_fields.get("layer_replication"):
        message = "it would change the model that the adapters are placed on"
        problems.append(problem("layer_replication", message, "remove this key"))
    if isinstance(init, str) and init.startswith("pissa_niter"):
        message = f"{init} starts at random, and loading the adapter would start from other weights"
        problems.append(problem(INIT, message, "write pissa"))
    if init in DATA_DRIVEN_INITS:
        problems.append(problem(INIT, f"{init} needs a pass over the data first, which is not made here", "remove it"))
    return problems


def _obstacles(spec: AdapterSpec, *, packed: bool) -> dict[str, str]:
    """What of the config cannot be done on a bare parameter: name -> reason. `packed`: 4-bit loading concerns it."""
    fields, found = spec.peft_fields, {}
    if spec.is_quantized and packed:
        found["QLoRA"] = "4-bit loading does not quantise fused experts, and PEFT cannot adapt a packed parameter"
    if spec.uses_dora:
        found["DoRA"] = "PEFT has its magnitude for modules alone, not for parameters"
    init = fields.get(INIT)
    if isinstance(init, str) and init != "gaussian":
        name = "PiSSA" if init.startswith("pissa") else init
        found[name] = "PEFT starts it from the weight of a linear layer, not from a stack of experts"
    if fields.get("lora_dropout"):
        found["lora_dropout"] = "PEFT merges the adapter into the parameter, so no input is left to drop from"
    for key in NOT_ON_PARAMETERS:
        if fields.get(key):
            found[key] = "PEFT has it for modules alone, not for parameters"
    return found


def _parameter_problems(spec: AdapterSpec, parts: Sequence[Part], targets: Iterable[Target]) -> list[Problem]:
    """One problem for each kind of parameter that is to be adapted and each thing that PEFT cannot do there."""
    roles, problems = _roles(parts), []
    for role in dict.fromkeys(roles.get(target.name, "other") for target in targets if target.is_parameter):
        flag = FLAGS.get(role)
        is_asked = flag is not None and getattr(spec, flag)
        key = (
            flag if is_asked else "target_parameters" if spec.peft_fields.get("target_parameters") else "target_modules"
        )
        hint = f"remove it, or adapter.{key}" if is_asked else "remove it, or write adapter.target_modules: auto"
        what = {"expert": "fused experts", "router": "the router"}.get(role, "a bare parameter")
        for name, reason in _obstacles(spec, packed=role != "router").items():
            problems.append(problem(key, f"{name} does not work on {what}: {reason}", hint))
    return problems


def _unmatched_entries(model: Any, spec: AdapterSpec, parts: Sequence[Part]) -> list[Problem]:
    """Entries of a list that match no module, and that PEFT does not take for experts either."""
    named, names = spec.peft_fields["target_modules"], [name for name, _ in model.named_modules()]
    return [
        _no_target(parts, f"{entry!r} matches no module of this model", entry)
        for entry in (named if isinstance(named, list) else [])
        if not any(ends_with(name, entry) for name in names)
        and peft_reading.reading(model, entry.rpartition(".")[2]) != "experts"
    ]


def _no_target(parts: Sequence[Part], message: str, entry: str = "") -> Problem:
    linear = sorted({part.leaf for part in parts if part.role == "linear"})
    hint = f"{_nearest(entry, linear)}; or auto"
    for role, flag in FLAGS.items():
        names = sorted({starred(part.target.name) for part in parts if part.role == role and part.can_adapt})
        hint += f"; {role}: {', '.join(names)} (adapter.{flag} with auto)" if names else ""
    return problem("target_modules", message, hint, "no_target")


def _warnings(spec: AdapterSpec, parts: Sequence[Part], named: Iterable[Target]) -> list[Problem]:
    """What the user's own names reach beside the linear layers of the text model, and what 4-bit loading does not."""
    said = {
        "expert": "the routed experts of this MoE model: PEFT reads names such as gate_proj as theirs",
        "router": "the router of this MoE model",
        "outside": "modules outside of the text model, which a text never reaches",
    }
    roles, found = _roles(parts), []
    for role, n in Counter(roles.get(target.name, "other") for target in named).items():
        flag = FLAGS.get(role)
        if role in said and not (flag and getattr(spec, flag)):
            hint = f"adapter.{flag}: true says that this is meant" if flag else "write auto"
            message = f"the names also adapt {said[role]} ({n} in all)"
            found.append(problem("target_modules", message, hint, f"adapts_{role}"))
    if spec.is_quantized and _has_fused_experts(parts):
        message = "4-bit loading quantises linear layers alone: the fused experts, most of this model, stay in 16 bit"
        hint = "adapter.type: lora needs hardly more memory here and is faster"
        found.append(problem("type", message, hint, "experts_not_quantized"))
    return found


def _has_fused_experts(parts: Sequence[Part]) -> bool:
    return any(part.role == "expert" and part.target.n_experts > 1 for part in parts)


def _nearest(entry: str, legal: Sequence[str]) -> str:
    near = difflib.get_close_matches(entry, legal, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"legal: {', '.join(legal)}"


def _prepare_quantized(model: Any, checkpointing: bool) -> Any:
    """PEFT's preparation (fp32 norms and head), but not where experts are fused: it would double them to fp32."""
    from peft import prepare_model_for_kbit_training

    if not _has_fused_experts(model_parts.find(model)):
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    if checkpointing:
        model.enable_input_require_grads()
    return model


def _roles(parts: Iterable[Part]) -> dict[str, Role]:
    return {name: part.role for part in parts for name in (part.target.name, part.weight)}


def _by_tower(parts: Sequence[Part], left_out: Iterable[LeftOut]) -> list[LeftOut]:
    """The same with one line for a whole tower outside of the text model."""
    inside = {
        part.module[:i] for part in parts if part.role != "outside" for i, x in enumerate(part.module) if x == "."
    }
    outside = {part.target.name for part in parts if part.role == "outside"}
    towers = {name: next(e for e in _starts(name) if e not in inside) if name in outside else name for name in outside}
    return list(dict.fromkeys(LeftOut(towers.get(item.name, item.name), item.reason) for item in left_out))


def _starts(name: str) -> Iterator[str]:
    """The beginnings of a dotted name, shortest first."""
    parts = name.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))


def _kinds(names: Iterable[str]) -> list[str]:
    """One text for each kind of parent module: its children, and how many such parents there are."""
    children = defaultdict(list)
    for name in names:
        parent, _, child = name.removesuffix(".weight").rpartition(".")
        children[parent].append(child)
    kinds = Counter((starred(parent), ", ".join(found)) for parent, found in children.items())
    texts = [(f"{kind}: {found}" if kind else found, n) for (kind, found), n in kinds.items()]
    return [f"{text} (x{n})" if n > 1 else text for text, n in texts]
