"""Shared by all tests: the import path, and a tiny real model that trains in seconds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# as the scripts set it for themselves, before torch is imported
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE"}
os.environ |= {"GOMP_SPINCOUNT": "20000", "TOKENIZERS_PARALLELISM": "false"}
os.environ.pop("HF_TOKEN", None)

BUNDLE = Path(__file__).resolve().parent.parent
for folder in (BUNDLE / "scripts" / "task", BUNDLE / "scripts", BUNDLE / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The root of the checkout."""
    return BUNDLE


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real Llama of 3 million random weights and SmolLM2's tokenizer and template."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from tasklib.model import builtin

    tokenizer = AutoTokenizer.from_pretrained(builtin.folder("builtin:smollm2-135m"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("tiny-model")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
