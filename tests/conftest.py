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
    import tiny_llama

    return tiny_llama.save(tmp_path_factory.mktemp("tiny-model"))
