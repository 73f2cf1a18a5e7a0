"""What keeps a model, or its attention, from running compiled is named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_multiverse.cpu.known import NotCompiledError, check_model


def made(name: str, module: str = "sglang.srt.models.llama", **attributes: Any) -> Any:
    """An object of a class of this name."""
    thing = type(name, (SimpleNamespace,), {"__module__": module})()
    thing.__dict__.update(attributes)
    return thing


def linear(kind: str, method: str = "UnquantizedLinearMethod", dtype: Any = torch.float32) -> Any:
    return made(kind, quant_method=made(method), weight=torch.zeros(2, 2, dtype=dtype))


def norm(eps: float = 1e-5) -> Any:
    return made(
        "RMSNorm", variance_epsilon=eps, variance_size_override=None, override_orig_dtype=None
    )


def runner() -> Any:
    """As much of a Llama as `check_model` looks at."""
    attention = made(
        "LlamaAttention",
        qkv_proj=linear("QKVParallelLinear"),
        o_proj=linear("RowParallelLinear"),
        rotary_emb=made("RotaryEmbedding", is_neox_style=True),
        attn=SimpleNamespace(scaling=0.125, logit_cap=0.0),
    )
    mlp = made(
        "LlamaMLP",
        gate_up_proj=linear("MergedColumnParallelLinear"),
        down_proj=linear("RowParallelLinear"),
        act_fn=made("SiluAndMul"),
    )
    layer = made(
        "LlamaDecoderLayer",
        self_attn=attention,
        mlp=mlp,
        input_layernorm=norm(),
        post_attention_layernorm=norm(),
    )
    inner = made(
        "LlamaModel",
        config=SimpleNamespace(),
        embed_tokens=linear("VocabParallelEmbedding", "UnquantizedEmbeddingMethod"),
        layers=[layer],
        norm=norm(),
    )
    model = made("LlamaForCausalLM", model=inner, lm_head=inner.embed_tokens)
    args = SimpleNamespace(tp_size=1, pp_size=1, dp_size=1, rl_on_policy_target=None)
    return SimpleNamespace(server_args=args, model=model)


def test_a_plain_llama_is_known() -> None:
    check_model(runner())


LAYER = "model.model.layers.0"


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("server_args.tp_size", 2, "--tp-size 2"),
        ("model.model", made("MixtralModel"), "LlamaForCausalLM is not one of the known models"),
        ("model.model", made("LlamaModel", "mine"), "not one of the known models"),
        ("model.lm_head", made("ParallelLMHeadWithLoRA"), "lm_head is a ParallelLMHeadWithLoRA"),
        (f"{LAYER}.mlp", made("LlamaMoE"), "layer 0 is made of .*, LlamaMoE"),
        (f"{LAYER}.self_attn.qkv_proj", made("QKVParallelLinearWithLoRA"), "qkv_proj is a QKV"),
        (f"{LAYER}.mlp.down_proj", linear("RowParallelLinear", "Fp8LinearMethod"), "quantised"),
        (f"{LAYER}.mlp.down_proj", linear("RowParallelLinear", dtype=torch.float16), "float16"),
        (f"{LAYER}.mlp.act_fn", made("GeluAndMul"), "activation is not SiLU"),
        (f"{LAYER}.input_layernorm", norm(1e-6), "layer 0's input_layernorm is not a plain"),
        (f"{LAYER}.self_attn.rotary_emb", made("MRotaryEmbedding"), "positions of MRotary"),
        (f"{LAYER}.self_attn.attn.logit_cap", 30.0, "layer 0 scales or caps its scores"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_named(path: str, value: Any, reason: str) -> None:
    changed = runner()
    *parents, last = path.split(".")
    thing: Any = changed
    for name in parents:
        thing = thing[int(name)] if name.isdigit() else getattr(thing, name)
    setattr(thing, last, value)
    with pytest.raises(NotCompiledError, match=reason):
        check_model(changed)
