"""Every family that runs compiled, served, against transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from server import Server
from sglang_multiverse.kernels.cpu import library

pytestmark = [
    pytest.mark.skipif(library.available() is not None, reason=str(library.available())),
    pytest.mark.skipif(torch.cuda.is_available(), reason="serves on the GPU"),
    pytest.mark.server,
    pytest.mark.slow,
]
SIZES = {
    "vocab_size": 258,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "initializer_range": 0.15,
}


class Family(NamedTuple):
    """How a random model is made and served, and how near its log probabilities must be."""

    model: str
    settings: dict[str, Any]
    flags: tuple[str, ...] = ()
    tolerance: float = 1e-3
    weights: str = "float32"


FAMILIES = {
    "qwen2": Family("Qwen2", {"tie_word_embeddings": True}),
    # Its weights are bf16 already, so that packing them as bf16 changes nothing.
    "qwen3-bf16-weights": Family("Qwen3", {"head_dim": 32}, weights="bfloat16"),
    "llama3-bf16-kv": Family(
        "Llama",
        {
            "attention_bias": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        flags=("--dtype", "bfloat16"),
        tolerance=0.1,
        weights="bfloat16",
    ),
}


def make(family: Family, folder: Path) -> None:
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*letters, "<s>", "</s>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = getattr(transformers, f"{family.model}Config")(**SIZES, **family.settings)
    model = getattr(transformers, f"{family.model}ForCausalLM")(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:  # as they begin, they would do nothing
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.2)
    model.to(getattr(torch, family.weights)).save_pretrained(folder)


@pytest.fixture(scope="module", params=FAMILIES)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Family, Path, Server]]:
    family = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    make(family, folder)
    with ExitStack() as stack:
        server = Server(*family.flags, model=folder, pool=2048)
        stack.callback(server.stop)
        yield family, folder, server.start()


def test_a_family_runs_compiled_as_transformers_has_it(
    served: tuple[Family, Path, Server],
) -> None:
    from transformers import AutoModelForCausalLM

    family, folder, server = served
    assert f"weights in {family.weights}, packed" in server.log
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(0, 256, (n,), generator=generator).tolist() for n in (5, 70, 131)]
    for prompt in prompts:
        answer = server.generate(
            prompt,
            sampling_params={"max_new_tokens": 12, "ignore_eos": True},
            return_logprob=True,
            logprob_start_len=0,
        )
        meta = answer["meta_info"]
        rows = [*meta["input_token_logprobs"][1:], *meta["output_token_logprobs"]]
        ids = torch.tensor([[*prompt, *(row[1] for row in meta["output_token_logprobs"])]])
        with torch.no_grad():
            scores = model(ids).logits[0, :-1].log_softmax(-1)
        want = scores.gather(1, ids[0, 1:, None])[:, 0]
        got = torch.tensor([row[0] for row in rows])
        assert (got - want).abs().max() < family.tolerance
        # What was decoded is, but for rounding, the best there was.
        chosen = want[len(prompt) - 1 :]
        assert (scores[len(prompt) - 1 :].amax(-1) - chosen < family.tolerance).all()
