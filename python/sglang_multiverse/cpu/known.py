"""Which models the compiled decoder computes as SGLang's modules do."""

from __future__ import annotations

from typing import Any

import torch

_LAYERS = {
    "LlamaModel": ("LlamaDecoderLayer", "LlamaAttention", "LlamaMLP"),
    "Qwen2Model": ("Qwen2DecoderLayer", "Qwen2Attention", "Qwen2MLP"),
    "Qwen3Model": ("Qwen3DecoderLayer", "Qwen3Attention", "Qwen2MLP"),
}
_ROTARY = {
    "RotaryEmbedding",
    "Llama3RotaryEmbedding",
    "YaRNScalingRotaryEmbedding",
    "DynamicNTKScalingRotaryEmbedding",
    "DynamicNTKAlphaRotaryEmbedding",
}
_PLAIN_METHODS = {"UnquantizedLinearMethod", "UnquantizedEmbeddingMethod"}
_LINEAR = {
    "qkv_proj": "QKVParallelLinear",
    "o_proj": "RowParallelLinear",
    "gate_up_proj": "MergedColumnParallelLinear",
    "down_proj": "RowParallelLinear",
}


class NotCompiledError(Exception):
    """The model keeps SGLang's modules; the message names what is not known of it."""


def check_model(runner: Any) -> None:
    """Go through all that a forward pass would read.

    Modules are told by their exact class: a subclass may compute something else.

    Raises:
        NotCompiledError: naming the first thing that is not known.
    """
    args = runner.server_args
    for flag in ("tp_size", "pp_size", "dp_size"):
        _expect(getattr(args, flag) == 1, f"--{flag.replace('_', '-')} {getattr(args, flag)}")
    _expect(args.rl_on_policy_target is None, "--rl-on-policy-target")
    model = runner.model
    inner: Any = getattr(model, "model", None)
    classes = _LAYERS.get(type(inner).__name__)
    known = ", ".join(_LAYERS)
    if classes is None or not type(inner).__module__.startswith("sglang.srt.models."):
        raise NotCompiledError(f"{type(model).__name__} is not one of the known models ({known})")
    _expect(not hasattr(inner.config, "scale_emb"), "the embedding is scaled")
    _linear("embed_tokens", inner.embed_tokens, "VocabParallelEmbedding")
    _linear("lm_head", getattr(model, "lm_head", None), "ParallelLMHead", "VocabParallelEmbedding")
    eps, scaling = inner.norm.variance_epsilon, inner.layers[0].self_attn.attn.scaling
    _norm("norm", inner.norm, eps)
    for i, layer in enumerate(inner.layers):
        parts = (layer, getattr(layer, "self_attn", None), getattr(layer, "mlp", None))
        names = tuple(type(part).__name__ for part in parts)
        _expect(names == classes, f"layer {i} is made of {', '.join(names)}")
        _layer(f"layer {i}", layer, eps, scaling)


def _layer(name: str, layer: Any, eps: float, scaling: float) -> None:
    attention, mlp = layer.self_attn, layer.mlp
    for part in (attention, mlp):
        for linear, kind in _LINEAR.items():
            if hasattr(part, linear):
                _linear(f"{name}'s {linear}", getattr(part, linear), kind)
    _expect(type(mlp.act_fn).__name__ == "SiluAndMul", f"{name}'s activation is not SiLU")
    _expect(getattr(mlp.gate_up_proj, "bias", None) is None, f"{name}'s MLP has biases")
    for norm in ("input_layernorm", "post_attention_layernorm"):
        _norm(f"{name}'s {norm}", getattr(layer, norm), eps)
    for norm in ("q_norm", "k_norm"):
        if hasattr(attention, norm):
            _norm(f"{name}'s {norm}", getattr(attention, norm), eps)
    rotary, attn = attention.rotary_emb, attention.attn
    _expect(
        type(rotary).__name__ in _ROTARY and rotary.is_neox_style,
        f"{name} has the positions of {type(rotary).__name__}",
    )
    _expect(not attn.logit_cap and attn.scaling == scaling, f"{name} scales or caps its scores")


def _linear(name: str, module: Any, *kinds: str) -> None:
    kind = type(module).__name__
    _expect(kind in kinds, f"{name} is a {kind}")
    method = type(getattr(module, "quant_method", None)).__name__
    _expect(method in _PLAIN_METHODS, f"{name} is quantised ({method})")
    _expect(
        module.weight.dtype in (torch.float32, torch.bfloat16),
        f"{name} is in {module.weight.dtype}",
    )


def _norm(name: str, norm: Any, eps: float) -> None:
    plain = (
        type(norm).__name__ == "RMSNorm"
        and norm.variance_epsilon == eps
        and norm.variance_size_override is None
        and norm.override_orig_dtype is None
    )
    _expect(plain, f"{name} is not a plain RMSNorm with the eps of the others")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotCompiledError(otherwise)


def rotary_table(rotary: Any) -> torch.Tensor:
    """fp32 [positions, rotary dim]; SGLang keeps its own in the model's dtype."""
    exact = rotary._compute_cos_sin_cache()
    kept = rotary.cos_sin_cache
    return (exact if exact.shape == kept.shape else kept).float().contiguous()
