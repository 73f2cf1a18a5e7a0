"""A training step with `flex_attention` block masks, against the same step with dense masks.

    python benchmark/gpu/training.py --out training.json

First right: loss and gradients of the tests' model, fp32, on packed examples. Then cheap: time and
memory of a step of a 0.5B model (Qwen2.5's shape, random weights, bf16) at rows of growing length,
all ways in turns. A CPU has no backward pass of `flex_attention`; only its loss is held there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from models import problems
from server import MODEL
from sglang_multiverse.structure import TagTable, resolve_tags
from sglang_multiverse.training.attention import SEGMENTS
from sglang_multiverse.training.encode import Example, encode
from sglang_multiverse.training.learner import Learner
from sglang_multiverse.training.packing import Packed, PackedCollator, pack

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
TOLERANCE = 1e-3  # of the dense gradient's norm
# `segments` is what training uses without a GPU: dense masks, one example of a row at a time.
WAYS = {"dense": "sdpa", "segments": SEGMENTS, "flex": "flex_attention"}
# Public figures of Qwen2.5-0.5B; the vocabulary is the tests'.
SHAPE = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 32768,
}
TINY = {**SHAPE, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 2}


class Step:
    """One model under every way of attending: the weights are the same."""

    def __init__(self, model: Any) -> None:
        self.model = model.to(DEVICE).train()

    def __call__(self, way: str, batch: Packed, *, learn: bool) -> float:
        """The mean loss of a labelled token; with `learn`, the parameters have its gradient."""
        self.model.set_attn_implementation(WAYS[way])
        self.model.zero_grad(set_to_none=True)
        learner = Learner(self.model, flex=way == "flex")
        with torch.set_grad_enabled(learn):
            loss = learner(batch) / batch.learned
        if learn:
            loss.backward()
        return loss.item()

    def gradient(self) -> torch.Tensor:
        """Of all parameters, fp32 [parameters]."""
        found = [p.grad.flatten().float() for p in self.model.parameters() if p.grad is not None]
        return torch.cat(found)


def examples(tokenizer: Any, tags: TagTable, count: int) -> list[Example]:
    """Solved problems of every kind: no blocks, flat, nested, several rounds."""
    found = []
    for seed in range(count):
        problem = problems.generate(seed, "train", problems.KINDS[seed % len(problems.KINDS)])
        turns = [
            {"role": "user", "content": problem.prompt},
            {"role": "assistant", "content": problem.solution},
        ]
        found.append(encode(turns, tokenizer, tags))
    return found


def rows(made: list[Example], collate: PackedCollator, width: int) -> Packed:
    """One full row of `width` tokens."""
    lengths = [len(example) for example in made]
    packed = pack(lengths, range(len(made)), width)
    fullest = max(packed, key=lambda row: sum(lengths[index] for index in row))
    batch = PackedCollator(collate.tags, collate.pad_id, width)([[made[i] for i in fullest]])
    return batch.to(DEVICE)


def agreement(made: list[Example], collate: PackedCollator) -> dict[str, Any]:
    """Of losses and gradients with the dense way's, fp32."""
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():  # as it is, it knows these examples, and has next to no loss
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=noise)
    step = Step(model)
    batch = rows(made, collate, 2048 if GPU else 512)
    loss = step("dense", batch, learn=True)
    said: dict[str, Any] = {"learned": batch.learned, "loss": loss}
    gradient = step.gradient()
    for way in WAYS:
        if way == "dense":
            continue
        learns = GPU or way != "flex"
        off = {"loss": abs(step(way, batch, learn=learns) - loss) / loss}
        if learns:
            off["gradient"] = float((step.gradient() - gradient).norm() / gradient.norm())
        said[way] = off
    said["right"] = all(off < TOLERANCE for way in WAYS for off in said.get(way, {}).values())
    return said


def cost(step: Step, batch: Packed, repeats: int) -> dict[str, Any]:
    """Seconds of forward and backward, and memory, by way; a way that fails says why."""
    said: dict[str, Any] = {"tokens": batch.input_ids.numel()}
    times: dict[str, list[float]] = {}
    for way in WAYS:
        try:
            step(way, batch, learn=GPU)  # compiled, and the caches warm
            times[way] = []
        except Exception:  # out of memory, or not to be compiled: the others may do
            said[way] = {"failed": traceback.format_exc()[-1500:]}
    for _ in range(repeats):
        for way, taken in times.items():
            _synchronize()
            if GPU:
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            step(way, batch, learn=GPU)
            _synchronize()
            taken.append(time.perf_counter() - began)
            peak = torch.cuda.max_memory_allocated() / 2**20 if GPU else None
            said[way] = {"seconds": statistics.median(taken), "peak_mib": peak}
    return said


def _synchronize() -> None:
    if GPU:
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="a small model and one short row")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    tags = resolve_tags(tokenizer)
    collate = PackedCollator(tags, tokenizer.pad_token_id)
    made = examples(tokenizer, tags, 8 if args.tiny else 240)
    found: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if GPU else None,
        "torch": torch.__version__,
        "learns": GPU,
    }

    def keep(name: str, what: Any) -> None:
        found[name] = what
        args.out.write_text(json.dumps(found, indent=1) + "\n")
        print(name, what, flush=True)

    keep("agreement", agreement(made, collate))
    config = Qwen2Config(**(TINY if args.tiny else SHAPE), vocab_size=len(tokenizer))
    dtype = torch.bfloat16 if GPU else torch.float32
    step = Step(Qwen2ForCausalLM(config).to(dtype))
    for width in (512,) if args.tiny else (4096, 16384):
        keep(f"row of {width}", cost(step, rows(made, collate, width), args.repeats))
    sys.exit(not found["agreement"]["right"])


if __name__ == "__main__":
    main()
