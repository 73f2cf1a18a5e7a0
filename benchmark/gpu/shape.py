"""A model without a checkpoint: a config, and weights that SGLang makes up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

TOKENIZER = Path(__file__).resolve().parent.parent.parent / "test/models/tiny-multiverse"
DUMMY = ("--load-format", "dummy")

# Public figures of Qwen2.5-7B.
QWEN_7B = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 2,
    "initializer_range": 0.02,
    "use_sliding_window": False,
}
TINY_SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
}


def write(folder: Path, *, tiny: bool) -> None:
    """With the tests' tokenizer, which has the tags."""
    for file in TOKENIZER.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)
    shape = {**QWEN_7B, **(TINY_SHAPE if tiny else {})}
    (folder / "config.json").write_text(json.dumps(shape))
