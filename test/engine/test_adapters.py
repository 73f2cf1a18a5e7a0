"""Whose adapters count as running."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sglang_multiverse.engine.adapters import held_adapters


def family(adapter: str | None, *, holds_slots: bool) -> Any:
    return SimpleNamespace(trunk=SimpleNamespace(lora_id=adapter), holds_slots=holds_slots)


def test_a_family_without_kv_keeps_no_adapter_from_others() -> None:
    families = {
        "1": family("a", holds_slots=True),
        "2": family("b", holds_slots=False),
        "3": family(None, holds_slots=True),
    }
    assert held_adapters(families) == {"a", None}
