"""Where adapters go, on tiny models of the real architectures: decided, trained, saved, loaded again."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tasklib.exit_codes import ExitCode
from tasklib.model import adapters, model_parts
from tasklib.schema import AdapterSpec, BaseModelSpec, RunConfig
from tasklib.summary import TaskError

pytestmark = pytest.mark.slow

SIZE = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {"num_key_value_heads": 2, "head_dim": 8}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
HYBRID = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
WINDOWS = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
MLA = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
# transformers' config class -> its sizes
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "LlamaConfig": HEADS,
    "Qwen3Config": HEADS,
    "Qwen3MoeConfig": HEADS | MOE,
    "Qwen3_5TextConfig": HEADS | HYBRID,
    "Qwen3_5MoeTextConfig": HEADS | HYBRID | MOE | {"shared_expert_intermediate_size": 16},
    "DeepseekV3Config": MLA,
    "GptOssConfig": HEADS | WINDOWS | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Gemma3TextConfig": HEADS | WINDOWS,
}
ATTENTION = {f"model.layers.*.self_attn.{name}_proj" for name in "qkvo"}
MLP = {f"model.layers.*.mlp.{name}_proj" for name in ("gate", "up", "down")}
LINEAR_ATTENTION = {
    f"model.layers.*.linear_attn.{name}" for name in ("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj")
}
SHARED = {f"model.layers.*.mlp.shared_expert.{name}_proj" for name in ("gate", "up", "down")}
DECIDED = {
    "LlamaConfig": ATTENTION | MLP,
    "Qwen3Config": ATTENTION | MLP,
    "Qwen3MoeConfig": ATTENTION,
    "Qwen3_5TextConfig": ATTENTION | LINEAR_ATTENTION | MLP,
    "Qwen3_5MoeTextConfig": ATTENTION | LINEAR_ATTENTION | SHARED,
    "DeepseekV3Config": {
        f"model.layers.*.self_attn.{name}"
        for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
    }
    | MLP
    | {name.replace("shared_expert", "shared_experts") for name in SHARED},
    "GptOssConfig": ATTENTION,
    "Gemma3TextConfig": ATTENTION | MLP,
}
ROUTERS = {
    "Qwen3MoeConfig": {"model.layers.*.mlp.gate"},
    "Qwen3_5MoeTextConfig": {"model.layers.*.mlp.gate", "model.layers.*.mlp.shared_expert_gate"},
    "DeepseekV3Config": {"model.layers.*.mlp.gate"},
    "GptOssConfig": {"model.layers.*.mlp.router"},
}
EXPERTS = {f"model.layers.*.mlp.experts.{name}" for name in ("gate_up_proj", "down_proj")}
MIXTURES = sorted(ROUTERS)


def config_of(name: str, **other: Any) -> Any:
    import transformers

    return getattr(transformers, name)(**(SIZE | ARCHITECTURES.get(name, {}) | other))


def tiny(name: str, *, meta: bool = False, **other: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device("meta" if meta else "cpu"):
        return AutoModelForCausalLM.from_config(config_of(name, **other))


def spec_of(**fields: Any) -> AdapterSpec:
    return AdapterSpec(**({"r": 4, "lora_alpha": 8} | fields))


def run_config(**fields: Any) -> RunConfig:
    return RunConfig(schema_version=1, base_model=BaseModelSpec(id="tiny"), adapter=spec_of(**fields))


def kinds(placement: adapters.Placement) -> set[str]:
    """Names of what is adapted, layers as *; a parameter named weight stands for its module."""
    return {model_parts.starred(target.name).removesuffix(".weight") for target in placement.targets}


def refusal(name: str, **fields: Any) -> list[Any]:
    with pytest.raises(TaskError) as caught:
        adapters.attach(tiny(name), run_config(**fields))
    assert caught.value.exit_code == ExitCode.USAGE
    return caught.value.problems


def token_ids(seed: int = 1) -> Any:
    import torch

    return torch.randint(3, 200, (4, 12), generator=torch.Generator().manual_seed(seed))


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=token_ids(2)).logits


def train(model: Any, n_steps: int = 3) -> None:
    import torch

    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    for _ in range(n_steps):
        loss = model(input_ids=token_ids(), labels=token_ids()).loss
        assert torch.isfinite(loss)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def save(model: Any, folder: Path) -> dict[str, Any]:
    """The call of 03_train.py; returns adapter_config.json."""
    model.save_pretrained(folder, save_embedding_layers=False)
    assert (folder / "adapter_model.safetensors").is_file()
    return json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))


def reloaded(base: Path, adapter: Path, **how: Any) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, **how), adapter)


def trained_kinds(model: Any) -> set[str]:
    """What is trainable, read from the parameter names alone: adapters by what they sit on, anything else as it is."""
    names = [name.removeprefix("base_model.model.") for name, p in model.named_parameters() if p.requires_grad]
    return {model_parts.starred(re.sub(r"(\.base_layer)*\.lora_.*", "", name)) for name in names}


def moved(model: Any, before: dict[str, Any]) -> set[str]:
    return {name for name, p in model.named_parameters() if not p.equal(before[name])}


# Every architecture: decided, trained, saved, loaded.


def train_save_reload(name: str, tmp_path: Path, **fields: Any) -> tuple[Any, adapters.Placement]:
    """Takes a tiny model through its whole life and checks what must hold for every architecture and every choice."""
    from transformers import AutoModelForCausalLM

    tiny(name).save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    untrained, config = logits(base), run_config(**fields)
    placement = adapters.place(base, config.adapter)
    model = adapters.attach(base, config)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    assert placement.n_trainable == model.get_nb_trainable_parameters()[0]
    assert logits(model).allclose(untrained, atol=1e-6), "a fresh adapter changes nothing"
    train(model)
    assert moved(model, before) == {key for key, p in model.named_parameters() if p.requires_grad}
    trained = logits(model)
    assert not trained.allclose(untrained, atol=1e-3)
    save(model, tmp_path / "adapter")
    resumed = adapters.attach(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), config)
    resumed.load_adapter(tmp_path / "adapter", "default", is_trainable=True)  # what --resume does
    assert logits(resumed).allclose(trained, atol=1e-6)
    assert trained_kinds(resumed) == trained_kinds(model)
    again = reloaded(tmp_path / "base", tmp_path / "adapter")
    assert logits(again).allclose(trained, atol=1e-6)
    assert logits(again.merge_and_unload()).allclose(trained, atol=1e-4)
    return model, placement


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_auto_adapts_the_linear_layers_and_the_adapter_gives_the_same_logits_when_loaded_again(name, tmp_path):
    model, placement = train_save_reload(name, tmp_path)
    assert kinds(placement) == DECIDED[name]
    assert trained_kinds(model) == DECIDED[name]
    left_out = {model_parts.starred(item.name).removesuffix(".weight") for item in placement.left_out}
    assert {"lm_head", "model.embed_tokens"} <= left_out
    assert ROUTERS.get(name, set()) <= left_out
    assert left_out & DECIDED[name] == set()


@pytest.mark.parametrize("name", MIXTURES)
def test_router_and_fused_experts_are_trained_saved_and_loaded_when_asked(name, tmp_path):
    model, placement = train_save_reload(name, tmp_path, train_experts=True, train_router=True)
    assert kinds(placement) == DECIDED[name] | ROUTERS[name] | EXPERTS
    wrappers = {"model.layers.*.mlp.experts"}  # PEFT nests both parameters of the module in one another
    assert trained_kinds(model) == DECIDED[name] | ROUTERS[name] | wrappers
    modules = dict(model.base_model.model.named_modules())
    for target in placement.targets:
        outer = modules[target.name.rpartition(".")[0] if target.is_parameter else target.name]
        layers = [
            layer for layer in outer.modules() if getattr(layer, "parameter_name", None) in target.name.split(".")
        ]
        layer = layers[0] if target.is_parameter else outer
        assert (target.in_features, target.out_features) == (layer.in_features, layer.out_features), target


@pytest.mark.parametrize("name", MIXTURES)
def test_router_and_experts_can_be_asked_for_one_by_one(name):
    model = tiny(name, meta=True)
    assert kinds(adapters.place(model, spec_of(train_router=True))) == DECIDED[name] | ROUTERS[name]
    assert kinds(adapters.place(model, spec_of(train_experts=True))) == DECIDED[name] | EXPERTS


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_decision_on_the_meta_device_is_the_same(name):
    asked = {"train_experts": True, "train_router": True} if name in MIXTURES else {}
    assert adapters.place(tiny(name, meta=True), spec_of(**asked)) == adapters.place(tiny(name), spec_of(**asked))


def test_full_training_gets_the_model_back_with_all_of_it_trainable():
    model = tiny("LlamaConfig")
    n_all = sum(p.numel() for p in model.parameters())
    config = RunConfig(schema_version=1, base_model=BaseModelSpec(id="tiny"), adapter=AdapterSpec(type="full"))
    placement = adapters.place(model, config.adapter)
    assert placement.n_trainable == n_all
    assert adapters.attach(model, config) is model
    assert adapters.describe(placement, model) == [f"trained: {n_all:,} of {n_all:,} parameters (100.00%)"]


# Other shapes of model: towers, experts in a list, kernels.


def test_a_vision_tower_gets_no_adapter_and_stands_in_one_line():
    import torch
    from transformers import AutoModelForImageTextToText, Gemma3Config, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    config = Gemma3Config(text_config=config_of("Gemma3TextConfig"), vision_config=vision, mm_tokens_per_image=4)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    placement = adapters.place(model, spec_of())
    assert kinds(placement) == {name.replace("model.", "model.language_model.") for name in ATTENTION | MLP}
    outside = [item.name for item in placement.left_out if item.reason == "not part of the text model"]
    assert sorted(outside) == ["model.multi_modal_projector", "model.vision_tower"]
    model = adapters.attach(model, run_config())
    assert not any("vision" in name for name, p in model.named_parameters() if p.requires_grad)
    # the user's own names go to PEFT unchanged, and reach the tower: that is said
    placement = adapters.place(tiny("Gemma3TextConfig", meta=True), spec_of(target_modules=["q_proj"]))
    assert placement.warnings == ()
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    codes = [warning.code for warning in adapters.place(model, spec_of(target_modules=["q_proj"])).warnings]
    assert codes == ["adapts_outside"]


def with_listed_experts() -> Any:
    """A Llama whose second MLP is a router and a list of experts, as models with code of their own have it."""
    import torch
    from transformers.models.llama.modeling_llama import LlamaMLP

    model = tiny("LlamaConfig", meta=True)
    with torch.device("meta"):
        block = torch.nn.Module()
        block.gate = torch.nn.Linear(32, 4, bias=False)
        block.experts = torch.nn.ModuleList([LlamaMLP(model.config) for _ in range(4)])
        block.shared_experts = LlamaMLP(model.config)
    model.model.layers[1].mlp = block
    return model


def test_experts_in_a_list_are_linear_layers_that_qlora_and_dora_may_adapt():
    listed = {f"model.layers.*.mlp.experts.*.{name}_proj" for name in ("gate", "up", "down")}
    shared = {f"model.layers.*.mlp.shared_experts.{name}_proj" for name in ("gate", "up", "down")}
    model = with_listed_experts()
    assert kinds(adapters.place(model, spec_of())) == ATTENTION | MLP | shared
    assert kinds(adapters.place(model, spec_of(train_router=True))) == ATTENTION | MLP | shared | {
        "model.layers.*.mlp.gate"
    }
    placement = adapters.place(model, spec_of(type="qdora", train_experts=True))
    assert kinds(placement) == ATTENTION | MLP | shared | listed
    assert not any(target.is_parameter for target in placement.targets)
    assert placement.warnings == ()


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("MixtralConfig", HEADS | {"num_local_experts": 4}),
        ("GraniteMoeConfig", {"num_key_value_heads": 2, "num_local_experts": 4}),
        (
            "JetMoeConfig",
            {"num_key_value_heads": 2, "kv_channels": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
        ),
        ("Llama4TextConfig", HEADS | {"num_local_experts": 4, "intermediate_size_mlp": 40, "layer_types": None}),
        ("Ernie4_5_MoeConfig", HEADS | {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24}),
        # the shared expert is as wide as there are experts: its first matrix looks like a router's
        ("Qwen3NextConfig", HEADS | HYBRID | MOE | {"shared_expert_intermediate_size": 4}),
    ],
)
def test_router_and_experts_are_told_from_the_rest_in_other_families(name, sizes):
    model = tiny(name, meta=True, **sizes)
    roles: dict[str, set[str]] = {}
    for part in model_parts.find(model):
        roles.setdefault(part.role, set()).add(model_parts.starred(part.weight).removesuffix(".weight"))
    assert all(
        re.search(r"\.(gate|router(\.layer)?|shared_expert_gate|e_score_correction_bias)$", x) for x in roles["router"]
    )
    assert all(re.search(r"\.(experts\.|mlp\.(in|out)put_linear)", x) for x in roles["expert"])
    assert {"expert", "router", "linear", "embedding", "head"} <= set(roles)
    assert not any("expert" in x for x in roles["linear"] if "shared_expert" not in x)
    assert not any(x.endswith((".gate", ".router")) for x in roles["linear"])


def test_a_layer_whose_kernel_reads_the_weight_itself_is_left_out():
    mamba = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
    placement = adapters.place(tiny("FalconH1Config", meta=True, **HEADS, **mamba), spec_of())
    assert "model.layers.*.mamba.in_proj" in kinds(placement)
    reasons = {model_parts.starred(item.name): item.reason for item in placement.left_out}
    assert reasons["model.layers.*.mamba.out_proj"] == "refused by PEFT: the layer's kernel reads the weight directly"


# What PEFT cannot do.


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"type": "qlora"}, ["QLoRA"]),
        ({"type": "dora"}, ["DoRA"]),
        ({"type": "qdora"}, ["QLoRA", "DoRA"]),
        ({"init_lora_weights": "pissa"}, ["PiSSA"]),
        ({"init_lora_weights": "olora"}, ["olora"]),
        ({"lora_dropout": 0.1}, ["lora_dropout"]),
        ({"type": "dora", "init_lora_weights": "pissa", "lora_dropout": 0.1}, ["DoRA", "PiSSA", "lora_dropout"]),
    ],
)
@pytest.mark.parametrize("name", ["Qwen3MoeConfig", "GptOssConfig"])
def test_what_cannot_be_done_on_fused_experts_is_refused_with_the_reason(name, fields, named):
    problems = refusal(name, train_experts=True, **fields)
    assert [problem.message.partition(" does not work on fused experts: ")[0] for problem in problems] == named
    assert {problem.field for problem in problems} == {"adapter.train_experts"}
    assert all(problem.hint for problem in problems)


def test_refusals_for_router_and_experts_and_the_rest_come_at_once():
    problems = refusal(
        "Qwen3MoeConfig", type="dora", train_experts=True, train_router=True, target_parameters=["nothing"]
    )
    assert [p.field for p in problems] == [
        "adapter.target_parameters",
        "adapter.train_experts",
        "adapter.train_router",
    ]


@pytest.mark.parametrize("name", ["LlamaConfig", "Gemma3TextConfig", "Qwen3_5TextConfig"])
def test_asking_for_experts_where_there_are_none_is_an_error(name):
    problems = refusal(name, train_experts=True, train_router=True)
    assert {problem.field for problem in problems} == {"adapter.train_experts", "adapter.train_router"}


@pytest.mark.parametrize(
    "fields",
    [
        {"use_dora": True},
        {"lora_dropout": 0.1},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "mica"},
        {"lora_bias": True},
        {"fan_in_fan_out": True},
        {"alora_invocation_tokens": [3]},
    ],
    ids=str,
)
def test_peft_itself_fails_on_fused_experts_where_this_refuses(fields):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4, target_modules=[], target_parameters=["experts.down_proj"], task_type="CAUSAL_LM", **fields
    )
    with pytest.raises((ValueError, AttributeError, TypeError)):
        get_peft_model(tiny("Qwen3MoeConfig"), config)
    fields = {key: value for key, value in fields.items() if key != "use_dora"} or {"type": "dora"}
    assert refusal("Qwen3MoeConfig", train_experts=True, **fields)


def test_every_variant_of_lora_that_peft_knows_is_refused_on_parameters():
    from peft import LoraConfig

    variants = {field.name for field in dataclasses.fields(LoraConfig) if field.metadata.get("is_lora_variant")}
    assert variants - {"use_dora"} <= set(adapters.NOT_ON_PARAMETERS)
    assert variants > {"use_dora"}


def test_dora_leaves_out_what_peft_would_take_for_experts_and_says_so(tmp_path):
    _, placement = train_save_reload("DeepseekV3Config", tmp_path, type="dora")
    assert kinds(placement) == {name for name in DECIDED["DeepseekV3Config"] if ".self_attn." in name}
    reasons = {model_parts.starred(item.name): item.reason for item in placement.left_out}
    assert "DoRA" in reasons["model.layers.*.mlp.shared_experts.up_proj"]
    assert "DoRA" in reasons["model.layers.*.mlp.up_proj"]


@pytest.mark.parametrize("fields", [{"type": "dora"}, {"init_lora_weights": "pissa"}, {"lora_dropout": 0.2}], ids=str)
def test_a_dense_model_takes_what_experts_cannot(fields, tmp_path):
    if "init_lora_weights" in fields:  # PiSSA moves part of the base weight into the adapter
        from transformers import AutoModelForCausalLM

        tiny("LlamaConfig").save_pretrained(tmp_path / "base")
        model = adapters.attach(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), run_config(**fields))
        train(model)
        save(model, tmp_path / "adapter")
        assert logits(reloaded(tmp_path / "base", tmp_path / "adapter")).allclose(logits(model), atol=1e-5)
    else:
        train_save_reload("LlamaConfig", tmp_path, **fields)


@pytest.mark.parametrize("init", ["pissa_niter_4", "eva", "corda", "lora_ga"])
def test_a_start_that_does_not_load_again_or_never_happens_is_refused(init):
    (problem,) = refusal("LlamaConfig", init_lora_weights=init)
    assert problem.field == "adapter.init_lora_weights"


# The user's own names.


def test_names_that_match_nothing_are_refused_one_by_one_with_the_legal_kinds():
    problems = refusal("Qwen3MoeConfig", target_modules=["q_proj", "k_porj", "c_attn"])
    assert [problem.message for problem in problems] == [
        "'k_porj' matches no module of this model",
        "'c_attn' matches no module of this model",
    ]
    assert "did you mean 'k_proj'? legal: k_proj, o_proj, q_proj, v_proj; or auto" in problems[0].hint
    assert "adapter.train_experts" in problems[0].hint and "adapter.train_router" in problems[0].hint
    assert {problem.field for problem in problems} == {"adapter.target_modules"}


@pytest.mark.parametrize("names", [".*nothing", [], None, "(", ["self_attn"], ["input_layernorm"]], ids=str)
def test_names_that_no_adapter_fits_are_refused(names):
    assert refusal("LlamaConfig", target_modules=names)


def test_half_of_a_fused_pair_is_refused_in_pefts_words():
    (problem,) = refusal("Qwen3MoeConfig", target_modules=["q_proj", "gate_proj"])
    assert problem.code == "refused_by_peft" and "up_proj" in problem.message


@pytest.mark.parametrize(
    ("name", "names", "codes"),
    [
        ("Qwen3MoeConfig", ["q_proj", "gate_proj", "up_proj", "down_proj"], ["adapts_expert"]),
        ("Qwen3MoeConfig", ["q_proj", "gate"], ["adapts_router"]),
        ("Qwen3MoeConfig", "all-linear", ["adapts_expert", "adapts_router"]),
        ("DeepseekV3Config", "all-linear", ["adapts_expert", "adapts_router"]),
        ("Qwen3MoeConfig", r".*\.mlp\.(gate|experts\.(gate|up|down)_proj)", ["adapts_expert", "adapts_router"]),
        ("Qwen3MoeConfig", ["q_proj", "v_proj"], []),
        ("GptOssConfig", "all-linear", []),
        ("LlamaConfig", r".*\.layers\.1\..*_proj", []),
    ],
    ids=str,
)
def test_names_go_to_peft_unchanged_and_what_they_reach_unasked_is_said(name, names, codes):
    from peft import LoraConfig, get_peft_model

    placement = adapters.place(tiny(name), spec_of(target_modules=names))
    assert sorted(warning.code for warning in placement.warnings) == codes
    model = adapters.attach(tiny(name), run_config(target_modules=names))
    plain = get_peft_model(tiny(name), LoraConfig(r=4, target_modules=names, task_type="CAUSAL_LM"))
    assert {x for x, p in model.named_parameters() if p.requires_grad} == {
        x for x, p in plain.named_parameters() if p.requires_grad
    }
    assert placement.n_trainable == plain.get_nb_trainable_parameters()[0]


def test_a_flag_says_that_the_names_are_meant_and_is_refused_where_they_reach_nothing_of_the_kind():
    names = ["q_proj", "gate", "gate_proj", "up_proj", "down_proj"]
    spec = spec_of(target_modules=names, train_experts=True, train_router=True)
    assert adapters.place(tiny("Qwen3MoeConfig", meta=True), spec).warnings == ()
    (problem,) = refusal("Qwen3MoeConfig", target_modules=["q_proj"], train_experts=True)
    assert problem.field == "adapter.train_experts"


def test_names_that_peft_turns_into_experts_are_refused_with_dora():
    problems = refusal("Qwen3MoeConfig", type="dora", target_modules=["gate_proj", "up_proj", "down_proj"])
    assert [(p.field, p.message.split(" does ")[0]) for p in problems] == [("adapter.target_modules", "DoRA")]


def test_head_and_embedding_are_adapted_where_the_user_names_them():
    model = adapters.attach(tiny("LlamaConfig"), run_config(target_modules=["q_proj", "lm_head", "embed_tokens"]))
    assert trained_kinds(model) == {"model.layers.*.self_attn.q_proj", "lm_head", "model.embed_tokens"}


def test_parameters_that_the_user_names_join_auto(tmp_path):
    _, placement = train_save_reload("Qwen3MoeConfig", tmp_path, target_parameters=["0.mlp.experts.down_proj"])
    own = [target.name for target in placement.targets if target.is_parameter]
    assert own == ["model.layers.0.mlp.experts.down_proj"]
    assert kinds(placement) == ATTENTION | {"model.layers.*.mlp.experts.down_proj"}


# PEFT's fields and the log.


def test_fields_of_the_config_reach_peft():
    fields = {"r": 6, "lora_alpha": 3, "lora_dropout": 0.1, "use_rslora": True, "rank_pattern": {"q_proj": 2}}
    model = adapters.attach(tiny("LlamaConfig"), run_config(**fields))
    lora = model.peft_config["default"]
    assert {key: getattr(lora, key) for key in fields} == fields
    assert (lora.task_type, lora.use_dora) == ("CAUSAL_LM", False)
    attention = model.base_model.model.model.layers[0].self_attn
    assert (attention.q_proj.r["default"], attention.k_proj.r["default"]) == (2, 6)
    assert attention.k_proj.scaling["default"] == pytest.approx(3 / 6**0.5)
    spec = run_config(**fields).adapter
    assert adapters.place(tiny("LlamaConfig"), spec).n_trainable == model.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("autocast", [True, False])
def test_the_adapter_of_a_bfloat16_model_is_kept_in_bfloat16_on_request(autocast):
    import torch

    model = tiny("Qwen3MoeConfig").to(torch.bfloat16)
    model = adapters.attach(model, run_config(autocast_adapter_dtype=autocast, train_experts=True, train_router=True))
    dtypes = {p.dtype for p in model.parameters() if p.requires_grad}
    assert dtypes == {torch.float32 if autocast else torch.bfloat16}
    train(model)


@pytest.mark.parametrize("name", ["Qwen3MoeConfig", "DeepseekV3Config"])
def test_activation_checkpointing_leaves_the_gradients_of_adapters_on_parameters_alone(name):
    gradients = []
    for checkpointing in (False, True):
        model = adapters.attach(tiny(name), run_config(train_experts=True, train_router=True))
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()(input_ids=token_ids(), labels=token_ids()).loss.backward()
        gradients.append({key: p.grad for key, p in model.named_parameters() if p.requires_grad})
    assert all(gradient.allclose(gradients[1][key], atol=1e-7) for key, gradient in gradients[0].items())
    assert any(gradient.abs().max() > 0 for key, gradient in gradients[0].items() if "experts.lora_B" in key)


def test_filters_hold_under_auto_on_modules_and_parameters():
    model = tiny("Qwen3MoeConfig", meta=True)
    placement = adapters.place(model, spec_of(train_experts=True, layers_to_transform=[1], exclude_modules=["v_proj"]))
    assert kinds(placement) == (ATTENTION | EXPERTS) - {"model.layers.*.self_attn.v_proj"}
    assert all(target.name.startswith("model.layers.1.") for target in placement.targets)
    config = run_config(train_experts=True, layers_to_transform=[1], exclude_modules=["v_proj"])
    model = adapters.attach(tiny("Qwen3MoeConfig"), config)
    assert model.get_nb_trainable_parameters()[0] == placement.n_trainable


def test_a_module_to_save_is_trained_beside_the_adapters_and_counted():
    spec = spec_of(modules_to_save=["lm_head"])
    placement = adapters.place(tiny("LlamaConfig", meta=True), spec)
    model = adapters.attach(tiny("LlamaConfig"), run_config(modules_to_save=["lm_head"]))
    assert "lm_head.modules_to_save.default.weight" in trained_kinds(model)
    assert placement.n_trainable == model.get_nb_trainable_parameters()[0]


def test_layer_replication_is_refused():
    (problem,) = refusal("LlamaConfig", layer_replication=[[0, 2], [0, 2]])
    assert problem.field == "adapter.layer_replication"


def test_the_log_names_kinds_reasons_and_the_share_before_and_after():
    placement = adapters.place(tiny("Qwen3MoeConfig", meta=True), spec_of())
    before = adapters.describe(placement, tiny("Qwen3MoeConfig", meta=True))
    model = adapters.attach(tiny("Qwen3MoeConfig"), run_config())
    assert before == adapters.describe(placement, model)
    assert before[0] == "adapters on model.layers.*.self_attn: q_proj, k_proj, v_proj, o_proj (x2)"
    assert any("mlp: gate (x2)" in line and "train_router" in line for line in before)
    trainable, total = model.get_nb_trainable_parameters()
    assert before[-1] == f"trained: {trainable:,} of {total:,} parameters ({trainable / total:.2%})"
    assert len(before) < 8


def test_anything_else_that_is_trainable_afterwards_is_a_bug(monkeypatch):
    import peft

    real = peft.get_peft_model

    def careless(model: Any, config: Any, **how: Any) -> Any:
        model = real(model, config, **how)
        model.base_model.model.lm_head.weight.requires_grad_(True)
        return model

    monkeypatch.setattr(peft, "get_peft_model", careless)
    with pytest.raises(RuntimeError, match=r"trainable without an adapter.*lm_head"):
        adapters.attach(tiny("LlamaConfig"), run_config())


def test_an_adapter_that_was_not_decided_is_a_bug(monkeypatch):
    import peft

    real = peft.get_peft_model

    def eager(model: Any, config: Any, **how: Any) -> Any:
        config.target_modules = {*config.target_modules, "lm_head"}
        return real(model, config, **how)

    monkeypatch.setattr(peft, "get_peft_model", eager)
    with pytest.raises(RuntimeError, match=r"not decided \['lm_head'\]"):
        adapters.attach(tiny("LlamaConfig"), run_config())


# 4 bit.


def quantized(name: str, folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    tiny(name, hidden_size=64, intermediate_size=64).to(torch.bfloat16).save_pretrained(folder)
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=how, device_map={"": "cpu"})


@pytest.mark.parametrize("name", ["LlamaConfig", "Qwen3MoeConfig", "DeepseekV3Config"])
def test_a_4_bit_model_is_trained_and_its_experts_keep_their_16_bit(name, tmp_path):
    import torch

    model, config = quantized(name, tmp_path), run_config(type="qlora", train_router=name == "Qwen3MoeConfig")
    placement = adapters.place(model, config.adapter)
    on_meta = adapters.place(tiny(name, meta=True, hidden_size=64, intermediate_size=64), config.adapter)
    assert placement == on_meta
    model = adapters.attach(model, config)
    train(model)
    assert placement.n_trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    codes = [warning.code for warning in placement.warnings]
    assert codes == ([] if name == "LlamaConfig" else ["experts_not_quantized"])
    assert {p.dtype for key, p in model.named_parameters() if ".experts." in key} <= {torch.bfloat16}
    attention = model.base_model.model.model.layers[0].self_attn.o_proj
    assert attention.base_layer.weight.dtype == torch.uint8
