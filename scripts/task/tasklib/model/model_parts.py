"""What a model consists of: its weight matrices and the role of each, read from its modules, never from its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["linear", "expert", "router", "selector", "head", "embedding", "outside", "other"]
MAX_EXTRA_SCORES = 8  # a router may also score a skip expert or shared experts


@dataclass(frozen=True)
class Target:
    """What one adapter sits on: a module, or a parameter (`is_parameter`) that PEFT wraps by `target_parameters`."""

    name: str
    is_parameter: bool
    in_features: int
    out_features: int
    n_experts: int = 1

    def n_parameters(self, rank: int) -> int:
        """Elements of A (rank, in) and B (out, rank), once for each expert: Hu et al. 2021, section 4.1."""
        return rank * (self.in_features + self.out_features) * self.n_experts


@dataclass(frozen=True)
class Part:
    """One weight matrix of the model: a linear module, or a parameter that a module of another kind holds itself."""

    target: Target
    module: str
    role: Role
    can_adapt: bool

    @property
    def leaf(self) -> str:
        return self.module.rpartition(".")[2]

    @property
    def weight(self) -> str:
        """The name of the parameter."""
        return self.target.name if self.target.is_parameter else f"{self.module}.weight"


def find(model: Any) -> list[Part]:
    """Every weight matrix (two dimensions or more) with its role; vectors such as norms never get adapters."""
    import torch
    from transformers.pytorch_utils import Conv1D

    role_of, hidden, found = _roles(model), model.get_input_embeddings().weight.shape[1], []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D):
            role = role_of.get(name, "other" if _computes_otherwise(module) else "linear")
            found.append(Part(module_target(name, module), name, role, can_adapt=role != "other"))
            continue
        role = role_of.get(name, "other")
        for short_name, parameter in module.named_parameters(recurse=False):
            shape = tuple(parameter.shape)
            if len(shape) < 2:
                continue
            is_fused = role == "expert" and len(shape) == 3 and parameter.is_floating_point()
            is_score = role == "router" and len(shape) == 2 and shape[1] == hidden
            target = parameter_target(f"{name}.{short_name}", shape, getattr(module, "is_transposed", False))
            found.append(Part(target, name, role, can_adapt=is_fused or is_score))
    return found


def _roles(model: Any) -> dict[str, Role]:
    """The role of each module that is more than a plain layer of the text model."""
    import torch

    modules = dict(model.named_modules())
    text_model = _text_model(model, modules)
    experts, routers = _experts_and_routers(modules, text_model, model.get_input_embeddings().weight.shape[1])
    # sparse attention's indexers choose tokens under torch.no_grad: an adapter there never gets a gradient
    selectors = [name for name, module in modules.items() if "Indexer" in type(module).__name__]
    head, roles = model.get_output_embeddings(), {}
    for name, module in modules.items():
        if module is head:
            roles[name] = "head"
        elif not is_inside(name, [text_model]):
            roles[name] = "outside"
        elif is_inside(name, experts):
            roles[name] = "expert"
        elif is_inside(name, routers):
            roles[name] = "router"
        elif is_inside(name, selectors):
            roles[name] = "selector"
        elif isinstance(module, torch.nn.Embedding):
            roles[name] = "embedding"
    return roles


def _computes_otherwise(module: Any) -> bool:
    """A linear module of the model's own kind whose forward pass is no x W: PEFT would add an x B A of another shape
    (DeepSeek-V4's grouped output projection)."""
    kind = type(module)
    return kind.__module__.startswith("transformers.models.") and "forward" in vars(kind)


def _text_model(model: Any, modules: dict[str, Any]) -> str:
    """The module that holds the input embedding and a list of layers: towers for images or sound lie outside of it."""
    import torch

    name = next(name for name, module in modules.items() if module is model.get_input_embeddings())
    while name:
        name = name.rpartition(".")[0]
        if any(isinstance(module, torch.nn.ModuleList) for module in modules[name].children()):
            break
    return name


def _experts_and_routers(modules: dict[str, Any], text_model: str, hidden: int) -> tuple[list[str], list[str]]:
    """Names of modules that hold routed experts, and of those that score them.

    n experts are a module with parameters of n slices, or a list of n equal modules; what makes them experts is a
    sibling with one score for each of them. Where one is found, a sibling with a single score (the gate of a shared
    expert) is a router too.
    """
    import torch

    experts, routers = [], {}
    for name, module in modules.items():
        n = _n_slices(module) if is_inside(name, [text_model]) else 0
        child, block = name, name.rpartition(".")[0]
        while n and block != text_model and not isinstance(modules[block], torch.nn.ModuleList):
            siblings = {f"{block}.{x}": m for x, m in modules[block].named_children() if f"{block}.{x}" != child}
            outputs = {x: _n_outputs(m, hidden) for x, m in siblings.items()}
            scorers = [x for x, sizes in outputs.items() if any(n <= size <= n + MAX_EXTRA_SCORES for size in sizes)]
            if scorers:
                experts.append(name)
                routers |= dict.fromkeys(scorers + [x for x, sizes in outputs.items() if sizes == {1}])
                break
            child, block = block, block.rpartition(".")[0]
    return experts, list(routers)


def _n_slices(module: Any) -> int:
    """How many experts the module would hold: slices of its parameters, or entries of a list of equal modules."""
    import torch

    if isinstance(module, torch.nn.ModuleList):
        return len(module) if len(module) > 1 and len({type(child) for child in module}) == 1 else 0
    if isinstance(module, torch.nn.modules.conv._ConvNd):
        return 0
    return next((p.shape[0] for p in module.parameters(recurse=False) if p.ndim >= 3), 0)


def _n_outputs(module: Any, hidden: int) -> set[int]:
    """Widths of what the matrices in the module give; empty where it cannot be a router, because it writes to the
    residual stream (as a shared expert does), holds an embedding, or holds experts itself."""
    import torch

    widths = set()
    for child in module.modules():
        if isinstance(child, torch.nn.Linear):
            widths.add(child.out_features)  # its weight may be packed in 4 bit
        elif isinstance(child, torch.nn.Embedding) or any(p.ndim > 2 for p in child.parameters(recurse=False)):
            return set()
        else:
            widths |= {p.shape[0] for p in child.parameters(recurse=False) if p.ndim == 2}
    return set() if hidden in widths else widths


def module_target(name: str, module: Any) -> Target:
    """An adapter on a linear module, or on another one that has a `weight` (out, ...)."""
    if hasattr(module, "in_features"):
        return Target(name, False, module.in_features, module.out_features)
    if hasattr(module, "nf"):  # transformers' Conv1D keeps its weight as (in, out)
        return Target(name, False, module.nx, module.nf)
    out_features = module.weight.shape[0]
    return Target(name, False, module.weight.numel() // out_features, out_features)


def parameter_target(name: str, shape: tuple[int, ...], is_transposed: bool) -> Target:
    """An adapter on a parameter (out, in) or (experts, out, in); `is_transposed` swaps the latter's last two, as
    transformers says by the attribute of that name."""
    n_experts = shape[0] if len(shape) == 3 else 1
    out_features, in_features = shape[-2:][::-1] if is_transposed and len(shape) == 3 else shape[-2:]
    return Target(name, True, in_features, out_features, n_experts)


def is_inside(name: str, prefixes: Iterable[str]) -> bool:
    """Whether `name` is one of the modules `prefixes` or lies below one; "" is the whole model."""
    return any(not prefix or name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def ends_with(name: str, entry: str) -> bool:
    """PEFT's rule for the entries of a list."""
    return name == entry or name.endswith(f".{entry}")


def suffixes(names: Iterable[str], every_name: Iterable[str]) -> list[str]:
    """The shortest ends that match `names` and no other of `every_name`: adapter_config.json stays readable."""
    names = set(names)
    others = {end for name in every_name if name not in names for end in _ends(name)}
    return sorted({next(end for end in _ends(name) if end not in others) for name in names})


def _ends(name: str) -> Iterator[str]:
    """The ends of a dotted name, shortest first."""
    parts = name.split(".")
    return (".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1))


def parameter_names(model: Any) -> list[str]:
    return [name for name, _ in model.named_parameters(remove_duplicate=False)]


def starred(name: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)
