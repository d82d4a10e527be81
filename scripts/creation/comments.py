"""Comments of the generated documents that depend on the task type, by the keys that it has."""

from __future__ import annotations

from typing import Any

from tasklib import task_types

# Key of `task:` -> what a reader has to know of it, by language.
OF_TASK = {
    "labels": {
        "zh-TW": "labels 左邊是資料裡的標籤，右邊是模型要寫出的答案。",
        "en": "labels: left the label in the data, right the answer that the model writes.",
    },
    "entity_types": {
        "zh-TW": "entity_types 左邊是資料裡的實體類型，右邊是模型要寫出的名稱。",
        "en": "entity_types: left the type in the data, right the name that the model writes.",
    },
    "sentiments": {
        "zh-TW": "sentiments 左邊是資料裡的情感，右邊是模型要寫出的答案。",
        "en": "sentiments: left the sentiment in the data, right the answer that the model writes.",
    },
    "stances": {
        "zh-TW": "stances 左邊是資料裡的立場，右邊是模型要寫出的答案。",
        "en": "stances: left the stance in the data, right the answer that the model writes.",
    },
    "json_schema": {
        "zh-TW": "json_schema 是每個答案都必須符合的 JSON Schema。",
        "en": "json_schema: the JSON Schema that every answer must fulfil.",
    },
    "turns": {
        "zh-TW": "模型用自己的話回答；turns 決定多輪對話是每個回答都學，還是只學最後一個。",
        "en": "The model answers in its own words; turns: every answer of a conversation is learned, or the last.",
    },
}
OTHERWISE = {"zh-TW": "這裡寫任務類型與它的選項。", "en": "The task type and its options."}
CLASSES = {"sft": "SFTConfig", "dpo": "DPOConfig", "orpo": "ORPOConfig"}  # of TRL
# Rows of the README's table that are true for some task types only.
ROWS = {
    "decide_row": {
        "zh-TW": "| 決定有兩種標籤的文字 | `uv run python scripts/01_validate_data.py --decide` "
        "| `data/decisions.csv` |",
        "en": "| Decide texts with two labels | `uv run python scripts/01_validate_data.py --decide` "
        "| `data/decisions.csv` |",
    },
    "label_row": {
        "zh-TW": "| 請模型協助標註 | `uv run python scripts/label_with.py --help` | `data/labelling/`、`data/raw/` |",
        "en": "| Label with the help of a model | `uv run python scripts/label_with.py --help` "
        "| `data/labelling/`, `data/raw/` |",
    },
    "pairs_row": {
        "zh-TW": "| 由答錯的列產生偏好配對 | `uv run python scripts/make_preferences.py` | `data/preferences/` |",
        "en": "| Preference pairs out of wrong answers | `uv run python scripts/make_preferences.py` "
        "| `data/preferences/` |",
    },
    "suggest_row": {
        "zh-TW": "| 值得再看一次的列 | `uv run python scripts/suggest_labels.py --help` "
        "| `data/labelling/`、`data/raw/` |",
        "en": "| Rows worth a second look | `uv run python scripts/suggest_labels.py --help` "
        "| `data/labelling/`, `data/raw/` |",
    },
}
QUESTION = {"zh-TW": "'一段文字'", "en": "'some text'"}


def of_definition(task_type: str | None, language: str) -> dict[str, str]:
    """The comments above `task:` of task_definition.yaml."""
    known = task_types.load(task_type).Options.model_fields if task_type else {}
    said = [text[language] for key, text in OF_TASK.items() if key in known]
    return {"task_comment": "\n".join(f"# {line}" for line in said or [OTHERWISE[language]])}


def of_config(config: dict[str, Any]) -> dict[str, str]:
    """The class whose fields `training` takes."""
    return {"method_fields": CLASSES.get(str(config.get("method")), "SFTConfig")}


def of_readme(task_type: str | None, fields: Any, language: str) -> dict[str, str]:
    """Rows of the table of stages, and what predict.py is asked."""
    module = task_types.load(task_type or "classification")
    has_labels = module.label_set(module.EXAMPLE_OPTIONS) is not None
    fits = {"decide_row": "label" in module.FIELDS, "label_row": has_labels, "suggest_row": has_labels}
    fits["pairs_row"] = "dpo" in module.METHODS and "chosen" not in module.FIELDS
    words = {name: text[language] + "\n" if fits[name] else "" for name, text in ROWS.items()}
    mapped = fields if isinstance(fields, dict) else {}
    form = next((form for form in module.FORMS if {*form.required} <= {*mapped}), module.FORMS[0])
    asked = [role for role in form.required if role in module.INPUT_FIELDS]
    is_text = len(asked) == 1 and asked[0] in module.TEXT_FIELDS
    return {**words, "question": QUESTION[language] if is_text else "--help"}
