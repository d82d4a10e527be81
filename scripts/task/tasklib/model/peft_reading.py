"""What PEFT makes of a config on a given model, found by PEFT's own functions, and what it really adapted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tasklib.exit_codes import ExitCode
from tasklib.model.model_parts import Target
from tasklib.schema import AdapterSpec
from tasklib.summary import Problem, TaskError


def lora_config(spec: AdapterSpec, fields: dict[str, Any]) -> Any:
    """LoraConfig of the user's fields and the decided targets. Raises TaskError (exit 2) for what PEFT refuses."""
    from peft import LoraConfig

    try:
        return LoraConfig(task_type="CAUSAL_LM", use_dora=spec.uses_dora, **{**spec.peft_fields, **fields})
    except (ValueError, TypeError, ImportError) as error:
        raise TaskError(ExitCode.USAGE, [refused_by_peft(error)]) from error


def as_peft_reads(model: Any, config: Any) -> Any:
    """The config after what PEFT does to it on this model: names of an older transformers become parameters of fused
    experts, all-linear becomes a list. Raises TaskError (exit 2) for what PEFT refuses."""
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    if config.target_modules is None:
        hint = "write auto, a list of module names, or [] where target_parameters says it all"
        message = "got null: PEFT would choose by the name of the model"
        raise TaskError(ExitCode.USAGE, [problem("target_modules", message, hint)])
    try:
        if isinstance(config.target_modules, str):
            re.compile(config.target_modules)
        convert_peft_config_for_transformers(config, model, None)
        return _maybe_include_all_linear_layers(config, model)
    except (ValueError, re.error) as error:
        raise TaskError(ExitCode.USAGE, [refused_by_peft(error)]) from error


def reading(model: Any, leaf: str) -> str:
    """How PEFT reads a module name on this model: `module`, `experts` (its weight conversion takes the name for that
    of routed experts or router in an older transformers), or `refused` (fused Mamba kernels)."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=[leaf])
    try:
        _check_lora_target_modules_mamba(config, model, leaf)
    except ValueError:
        return "refused"
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # half of a fused pair
        return "experts"
    return "module" if leaf in config.target_modules else "experts"


def n_trainable(model: Any, config: Any, targets: Iterable[Target]) -> int:
    """Elements of the adapters and of the copies that `modules_to_save` trains."""
    from peft.utils.other import get_pattern_key

    total = 0
    for target in targets:
        pattern = get_pattern_key(config.rank_pattern.keys(), target.name)
        total += target.n_parameters(config.rank_pattern.get(pattern, config.r))
        total += target.out_features * (bool(config.use_dora) + bool(config.lora_bias))
    saved = tuple(config.modules_to_save or ())
    copied = [module for name, module in model.named_modules() if saved and name.endswith(saved)]
    return total + sum(p.numel() for module in copied for p in module.parameters())


def require_as_decided(model: Any, targets: Iterable[Target], config: Any) -> None:
    """Raises RuntimeError unless exactly the decided adapters, and what the config adds by name, are trainable."""
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper
    from peft.utils.other import AuxiliaryTrainingWrapper

    adapted, allowed = set(), set()
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            layers = [getattr(module, kind) for kind in module.adapter_layer_names if hasattr(module, kind)]
            own = [p for layer in layers for p in layer.parameters()]
            allowed |= {id(p) for p in own}
            if any(p.requires_grad for p in own):
                base = name.removeprefix("base_model.model.").replace(".base_layer", "")
                adapted.add(f"{base}.{module.parameter_name}" if isinstance(module, ParamWrapper) else base)
        elif isinstance(module, AuxiliaryTrainingWrapper):
            allowed |= {id(p) for p in module.parameters()}
    decided = {target.name for target in targets}
    strays = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and id(p) not in allowed and not (config.bias != "none" and name.endswith("bias"))
    ]
    if adapted != decided or strays:
        raise RuntimeError(
            "PEFT did not adapt what was decided: "
            f"missing {sorted(decided - adapted)[:5]}, not decided {sorted(adapted - decided)[:5]}, "
            f"trainable without an adapter {strays[:5]}"
        )


def refused_by_peft(error: Exception) -> Problem:
    """What PEFT said, as a problem of the config."""
    message = f"PEFT refuses this configuration: {str(error).strip().splitlines()[0]}"
    return Problem(code="refused_by_peft", message=message, field="adapter", hint="see the fields of PEFT's LoraConfig")


def problem(key: str, message: str, hint: str, code: str = "illegal_adapter") -> Problem:
    """A problem of one key below `adapter`."""
    return Problem(code=code, message=message, field=f"adapter.{key}", hint=hint or None)
