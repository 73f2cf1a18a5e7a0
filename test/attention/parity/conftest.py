"""The backend in the real model: on a GPU as it is, else in Triton's interpreter.

Not collected by an ordinary run; `test_interpreted.py` starts a process for it, and
`pytest test/attention/parity` runs it on a GPU.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

TEST = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TEST / "attention"), str(TEST)]

from lone import GPU, TINY, LoneRunner  # noqa: E402
from trees import Text, read  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if INTERPRETED or GPU else ["*"]
# Interpreted, a layer costs a quarter of a second a step.
LAYERS = 4 if GPU else 1


@pytest.fixture(scope="session")
def made() -> LoneRunner:
    layers = json.dumps({"num_hidden_layers": LAYERS})
    return LoneRunner("--json-model-override-args", layers, "--cuda-graph-bs-decode", "2", "4", "6")


@pytest.fixture(scope="session")
def graphs(made: LoneRunner) -> Any:
    """The decode graphs; on a CPU, Python in their place."""
    if GPU:
        return made.runner.decode_cuda_graph_runner.backend
    import graphs

    return graphs.capture(made.runner)


@pytest.fixture
def runner(made: LoneRunner) -> LoneRunner:
    made.reset()
    return made


@pytest.fixture
def eager(runner: LoneRunner) -> Iterator[LoneRunner]:
    """Without decode graphs."""
    before, runner.runner.decode_cuda_graph_runner = runner.runner.decode_cuda_graph_runner, None
    yield runner
    runner.runner.decode_cuda_graph_runner = before


@pytest.fixture(scope="session")
def model() -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(TINY)
    config.num_hidden_layers = LAYERS
    return AutoModelForCausalLM.from_pretrained(TINY, config=config, dtype=torch.float32).eval()


FILLER = "Some words in front, to share. " * 3
NESTED = (
    "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: b\n</Outline>\n</Goal>"
    "\n<Path>\n1: x<Parallel><Goal><Outline>\n1.1: p\n</Outline><Outline>\n1.2: q\n</Outline>"
    "</Goal>\n<Path>\n1.1: Q\n</Path>\n<Path>\n1.2: R\n</Path>\n<Conclusion>\nin"
    "\n</Conclusion></Parallel>\n</Path>\n<Path>\n2: two\n</Path>"
    "\n<Conclusion>\ne\n</Conclusion>\n</Parallel>."
)
FLAT = (
    "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: b\n</Outline>\n<Outline>\n3: c"
    "\n</Outline>\n</Goal>\n<Path>\n1: 1\n</Path>\n<Path>\n2: 20\n</Path>\n<Path>\n3: 3\n</Path>"
    "\n<Conclusion>\n+\n</Conclusion>\n</Parallel>."
)


@pytest.fixture(scope="session")
def texts(made: LoneRunner, model: Any) -> dict[str, Text]:
    from sglang_multiverse.structure import resolve_tags

    tags = resolve_tags(made.tokenizer)
    return {
        name: read(made.tokenizer.encode(FILLER + text, add_special_tokens=False), tags, model)
        for name, text in (("nested", NESTED), ("flat", FLAT))
    }
