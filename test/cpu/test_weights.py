"""A server's weights: in each type, after an update, and what it says of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from server import Server
from sglang_multiverse.kernels.cpu import library

pytestmark = [
    pytest.mark.skipif(library.available() is not None, reason=str(library.available())),
    pytest.mark.skipif(torch.cuda.is_available(), reason="serves on the GPU"),
    pytest.mark.server("--multiverse-cpu-weights", "int8", private="cpu weights"),
    pytest.mark.slow,
]
PROMPT = "Tom has 5 apples, gets 3 and loses 2."


@pytest.fixture(scope="module")
def start(server: Server) -> str:
    return server.log


def answer(server: Server) -> list[float]:
    """Log probabilities of the prompt's tokens but the first."""
    server.flush()
    found = server.generate(
        PROMPT, sampling_params={"max_new_tokens": 1}, return_logprob=True, logprob_start_len=0
    )
    return [row[0] for row in found["meta_info"]["input_token_logprobs"][1:]]


def expected(model: Any, tokenizer: Any) -> torch.Tensor:
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    with torch.no_grad():
        scores = model(ids).logits[0].log_softmax(-1)
    return scores[:-1].gather(1, ids[0, 1:, None])[:, 0]


def off(got: list[float], want: torch.Tensor) -> float:
    return float((torch.tensor(got) - want).abs().max())


def test_it_says_how_it_runs(start: str) -> None:
    assert start.count("The model runs compiled: ") == 1
    assert "weights in int8" in start


def test_int8_is_near_but_not_the_same(
    server: Server, tiny_model: Any, tiny_tokenizer: Any
) -> None:
    difference = off(answer(server), expected(tiny_model, tiny_tokenizer))
    assert 1e-4 < difference < 0.5


@pytest.fixture
def changed(tmp_path: Path, tiny_path: Path) -> Path:
    """The tiny model with other weights in one layer and in the (tied) head."""
    shutil.copytree(tiny_path, tmp_path / "changed")
    path = tmp_path / "changed" / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.1.mlp.down_proj.weight"] *= -1.0
    weights["model.embed_tokens.weight"] *= 1.1
    save_file(weights, path, {"format": "pt"})
    return path.parent


def test_an_update_is_packed_again(
    server: Server, changed: Path, tiny_path: Path, tiny_tokenizer: Any
) -> None:
    from transformers import AutoModelForCausalLM

    before = answer(server)
    for path in (changed, tiny_path):
        update = server.http.post("/update_weights_from_disk", json={"model_path": str(path)})
        assert update.json()["success"], update.text
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        got = answer(server)
        assert off(got, expected(model, tiny_tokenizer)) < 0.5
        if path == changed:
            assert off(got, torch.tensor(before)) > 0.5
    assert got == before
