"""What all tests share: the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TEST = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def tiny_path() -> Path:
    return TEST / "models" / "tiny-multiverse"


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_path)


@pytest.fixture(scope="session")
def tiny_tags(tiny_tokenizer: Any) -> Any:
    from sglang_multiverse.structure import resolve_tags

    return resolve_tags(tiny_tokenizer)


@pytest.fixture(scope="session")
def tiny_model(tiny_path: Path) -> Any:
    """In fp32, on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_path, dtype=torch.float32).eval()
