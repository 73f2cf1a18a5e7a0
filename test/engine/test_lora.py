"""Adapters: families of several in one batch, each against its own merged weights."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import oracle
from asking import chat_ids, check_idle
from engine.test_parity import TOLERANCE, compare, eos_ids
from models import problems
from server import Server
from sglang_multiverse.structure import Limits, TagTable

pytestmark = pytest.mark.server

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# name → rank and modules; their ranks differ, and one leaves most modules alone.
ADAPTERS = {"all": (8, [*ATTENTION, "gate_proj", "up_proj", "down_proj"]), "some": (4, ATTENTION)}
# Strong enough to move log probabilities, weak enough for the model to go on forking.
STRENGTH = 0.04
BASE = "base"


def adapt(path: Path, rank: int, modules: list[str], save: Path, seed: int) -> Any:
    """Write a random adapter to `save`; returns the model with the adapter merged."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, target_modules=modules))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * STRENGTH)
            elif "lora_A" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) / rank)
    adapted.save_pretrained(save)
    return adapted.merge_and_unload().eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def models(tiny_path: Path, tiny_model: Any, saved: Path) -> dict[str, Any]:
    merged = {
        name: adapt(tiny_path, rank, modules, saved / name, seed)
        for seed, (name, (rank, modules)) in enumerate(ADAPTERS.items())
    }
    return {BASE: tiny_model, **merged}


@pytest.fixture(scope="module")
def server(models: dict[str, Any], saved: Path) -> Iterator[Server]:
    """Two adapters fit a batch, counting the base model; the requests name three."""
    paths = [f"{name}={saved / name}" for name in ADAPTERS]
    flags = ("--enable-lora", "--lora-paths", *paths, "--max-loras-per-batch", "2")
    with Server(*flags) as running:
        yield running


def test_families_of_all_adapters_at_once(
    server: Server, models: dict[str, Any], tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    prompts = [
        chat_ids(problems.generate(seed, "held-out", kind), tiny_tokenizer)
        for seed in (3, 4)
        for kind in ("flat", "nested")
    ]
    asked = [(name, ids) for ids in prompts for name in models]

    def ask(case: tuple[str, list[int]]) -> dict[str, Any]:
        name, ids = case
        adapter = {} if name == BASE else {"lora_path": name}
        return server.generate(
            ids, return_logprob=True, sampling_params={"max_new_tokens": 600}, **adapter
        )

    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(ask, asked))
    eos = eos_ids(models[BASE], tiny_tokenizer)
    forked: dict[str, int] = dict.fromkeys(models, 0)
    moves: dict[str, float] = dict.fromkeys(ADAPTERS, 0.0)
    for (name, ids), answer in zip(asked, answers, strict=True):
        compare(answer, ids, models[name], tiny_tags, eos)
        forked[name] += answer["meta_info"]["multiverse"]["branches"]
        if name != BASE:
            moved = distance(answer, ids, models[BASE], tiny_tags, eos)
            moves[name] = max(moves[name], moved)
    assert all(forked.values()), forked
    assert min(moves.values()) > 3 * TOLERANCE, moves  # the base model would not do
    check_idle(server)


def distance(
    answer: dict[str, Any], ids: list[int], model: Any, tags: TagTable, eos: set[int]
) -> float:
    """How far the answer's log probabilities are, at most, from those of `model`."""
    rows = answer["meta_info"]["output_token_logprobs"]
    forced = [row[0] is None for row in rows]
    scores = oracle.score(
        model, [*ids, *answer["output_ids"]], tags, len(ids), Limits(), eos, forced
    )
    found = torch.tensor([torch.nan if row[0] is None else row[0] for row in rows])
    return float((found - scores.guarded_logprobs).abs().nan_to_num().max())
