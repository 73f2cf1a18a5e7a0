"""When `multiverse_triton` is the default, and when both graphs are captured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from sglang_multiverse.attention import NAME, capture_both_graphs, prefer, register


def asked(path: Path, **changes: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{
            "tokenizer_path": str(path),
            "model_path": str(path),
            "tokenizer_mode": "auto",
            "trust_remote_code": False,
            "revision": None,
            "skip_tokenizer_init": False,
            "speculative_algorithm": None,
            **changes,
        }
    )


MODEL = SimpleNamespace(sliding_window_size=None, has_attention_sinks=False)


def choice(args: Any, *, mla: bool = False, model: Any = MODEL, cuda: bool = True) -> Any:
    with patch("sglang.srt.utils.is_cuda", lambda: cuda):
        return prefer("fa3", args, mla, model)


def test_the_default_for_a_model_with_the_tags_on_cuda(tiny_path: Path) -> None:
    assert choice(asked(tiny_path)) == NAME


@pytest.mark.parametrize(
    "changes",
    [
        {"mla": True},
        {"cuda": False},
        {"model": SimpleNamespace(sliding_window_size=128, has_attention_sinks=False)},
        {"model": SimpleNamespace(sliding_window_size=None, has_attention_sinks=True)},
    ],
)
def test_sglangs_choice_stands_where_ours_cannot_serve(
    tiny_path: Path, changes: dict[str, Any]
) -> None:
    assert choice(asked(tiny_path), **changes) is None


@pytest.mark.parametrize(
    "changes", [{"speculative_algorithm": "EAGLE"}, {"skip_tokenizer_init": True}]
)
def test_sglangs_choice_stands_for_other_servers(tiny_path: Path, changes: dict[str, Any]) -> None:
    assert choice(asked(tiny_path, **changes)) is None


def test_a_model_without_the_tags(tiny_path: Path, tmp_path: Path) -> None:
    text = (tiny_path / "tokenizer.json").read_text().replace("<Outline>", "<Sketch>")
    (tmp_path / "tokenizer.json").write_text(text)
    for name in ("tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((tiny_path / name).read_bytes())
    assert choice(asked(tmp_path)) is None


def test_the_name_is_a_choice_once() -> None:
    from sglang.srt.arg_groups.choices import ATTENTION_BACKEND_CHOICES
    from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS

    register()
    register()
    assert ATTENTION_BACKEND_CHOICES.count(NAME) == 1
    assert NAME in ATTENTION_BACKENDS


def runner(variants: Any, mode: str, **backend: Any) -> Any:
    from sglang.srt.model_executor.forward_batch_info import ForwardMode

    return SimpleNamespace(
        attn_backend=SimpleNamespace(**backend),
        capture_forward_mode=ForwardMode[mode],
        attention_graph_variants=variants,
    )


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (runner(None, "DECODE", graph_variants="ours"), "ours"),
        (runner("theirs", "DECODE", graph_variants="ours"), "theirs"),
        (runner(None, "TARGET_VERIFY", graph_variants="ours"), None),
        (runner(None, "DECODE"), None),
    ],
)
def test_both_graphs_are_captured_of_decoding_alone(given: Any, want: Any) -> None:
    capture_both_graphs(given)
    assert given.attention_graph_variants == want
