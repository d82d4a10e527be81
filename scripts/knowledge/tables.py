"""Tables of the catalogs, as the pages of references/ show them."""

from __future__ import annotations

from collections.abc import Sequence

from knowledge import catalogs
from knowledge.catalogs import DataSet, Default, Model

# page -> how the families begin that it speaks of; every family of the catalog is in exactly one (tested)
FAMILIES: dict[str, tuple[str, ...]] = {
    "qwen": ("Qwen",),
    "llama": ("Llama 3", "Llama 4"),
    "gemma": ("Gemma",),
    "deepseek": ("DeepSeek",),
    "glm": ("GLM",),
    "kimi": ("Kimi",),
    "minimax": ("MiniMax",),
    "mistral": ("Ministral", "Mistral"),
    "phi": ("Phi",),
    "smollm": ("SmolLM",),
    "gpt-oss": ("gpt-oss",),
    "taiwan": ("Llama-3-Taiwan", "Breeze", "Formosa", "TAIDE", "Twinkle"),
}
YES_NO = {True: "是", False: "否", None: "—"}
COMMERCIAL = {"yes": "可", "conditions": "有條件", "no": "不可", None: "—"}
CHINESE = {"trained": "有訓練", "understood": "看得懂", "weak": "弱", None: "—"}
THINKING = {"never": "無", "switchable": "可切換", "always": "固定開", None: "—"}
KINDS = {"base": "base", "instruct": "instruct"}
SCRIPTS = {"traditional": "繁", "simplified": "簡", "both": "繁簡", "none": "—", None: "—"}


def models_table(page: str) -> str:
    """The models of a page of references/models/. `？` follows what was not checked at its source."""
    rows = [_model_row(model) for model in of_page(page)]
    header = ("Hub id", "種類", "參數（啟用）", "結構", "context", "授權", "商用", "繁中", "thinking")
    return _table(header, rows)


def datasets_table(task: str) -> str:
    """The data sets of one task."""
    found = [entry for entry in catalogs.load("datasets/catalog.yaml") if entry.task == task]
    header = ("資料集", "筆數", "標籤", "語言", "授權", "商用", "datasets 5 可載入")
    return _table(header, [_dataset_row(entry) for entry in found])


def defaults_table(method: str) -> str:
    """The starting values of one method, and why."""
    found = [entry for entry in catalogs.load("methods/defaults.yaml") if entry.method == method]
    return _table(("key", "adapter", "起始值", "為什麼"), [_default_row(entry) for entry in found])


def of_page(page: str) -> list[Model]:
    """The models that a page of references/models/ speaks of. Raises KeyError for a page that no family belongs to."""
    return [model for model in catalogs.load("models/catalog.yaml") if model.family.startswith(FAMILIES[page])]


def parameters(model: Model) -> int | None:
    """As published, or as counted in what transformers builds from its config; never read from the name."""
    return model.parameters or model.text_parameters


def counted(model: Model) -> int | None:
    """Parameters of the causal language model that transformers builds from the catalog's config, on the meta device;
    None where the catalog has no config, or transformers no such model."""
    from knowledge import bases
    from tasklib.model import meta_model
    from tasklib.schema import RunConfig
    from tasklib.summary import TaskError

    if model.config is None:
        return None
    with bases.located(model.id) as base:
        config = RunConfig(schema_version=1, base_model={"id": base.location}, adapter={"type": "full"})
        try:
            built = meta_model.build(config, for_training=False)
        except TaskError:
            return None
    return sum(p.numel() for p in built.model.parameters())


def _model_row(model: Model) -> Sequence[object]:
    return (
        f"`{model.id}`",
        KINDS[model.kind],
        _sizes(model),
        model.layers,
        _doubted(model, "context_length", f"{model.context_length:,}" if model.context_length else "—"),
        _doubted(model, "licence", model.licence or "—"),
        _doubted(model, "commercial", COMMERCIAL[model.commercial]),
        _doubted(model, "traditional_chinese", CHINESE[model.traditional_chinese]),
        _doubted(model, "thinking", THINKING[model.thinking]),
    )


def _sizes(model: Model) -> str:
    total = parameters(model)
    if total is None:
        return "—"
    text = _billions(total) if model.parameters else f"約 {_billions(total)}"
    text = _doubted(model, "parameters", text)
    return f"{text}（{_billions(model.active_parameters)}）" if model.active_parameters else text


def _billions(n: int) -> str:
    """Three digits, as the field writes it: 0.135B, 8.03B, 671B, 1.04T."""
    return f"{n / 1e9:.3g}B" if n < 999.5e9 else f"{n / 1e12:.3g}T"


def _dataset_row(entry: DataSet) -> Sequence[object]:
    where = f"https://huggingface.co/datasets/{entry.hub_id}" if entry.hub_id else entry.url
    rows = "、".join(f"{split} {n:,}" for split, n in (entry.rows or {}).items()) or "—"
    labels = "、".join(entry.labels or ()) or "—"
    script = SCRIPTS[entry.script]
    language = f"{entry.language}（{script}）" if script != "—" else entry.language
    return (
        f"[{entry.name}]({where})" if where else entry.name,
        _doubted(entry, "rows", rows),
        _doubted(entry, "labels", labels if len(labels) < 80 else f"{len(entry.labels or ())} 個"),
        language,
        _doubted(entry, "licence", entry.licence or "—"),
        _doubted(entry, "commercial", COMMERCIAL[entry.commercial]),
        _doubted(entry, "loads_with_datasets_5", YES_NO[entry.loads_with_datasets_5]),
    )


def _default_row(entry: Default) -> Sequence[object]:
    value = entry.value
    shown = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else value
    return (f"`{entry.key}`", entry.adapter, shown, entry.reason)


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _doubted(entry: catalogs.Fact, key: str, text: str) -> str:
    return f"{text}？" if key in entry.unverified and text != "—" else text
