"""LoRA adapters of families: a parked trunk needs its adapter again.

Only so many adapters fit a batch. SGLang counts those of the running rows,
and a family whose branches wait has none. If a newcomer took its place, the
family would wait for as long as newcomers come. So the adapters of families
that hold KV count as running: rows and families together never need more than
fit, and what a family wants to extend can always be extended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .req import MultiverseReq
from .stage import Stage

if TYPE_CHECKING:
    from .family import Family


def held_adapters(families: Mapping[str, Family]) -> set[str | None]:
    """The adapters (`None` for the base model) of families that hold KV."""
    return {family.trunk.lora_id for family in families.values() if family.holds_slots}


def is_continued(req: Any, families: Mapping[str, Family]) -> bool:
    """Whether `req` goes on with a family that is at work, rather than starting one."""
    return (
        isinstance(req, MultiverseReq)
        and req.stage is not Stage.QUEUED
        and req.family.trunk.rid in families
    )


def has_adapter(scheduler: Any, req: Any, running: set[str | None]) -> bool:
    """Whether a family's adapter is there for its next extend.

    SGLang's drainer is not asked: it holds newcomers back until what runs is
    done, and this is part of what runs. Only an adapter that is loaded beside
    the computation may take some steps to come.
    """
    if req.lora_id in running or not scheduler.enable_lora_overlap_loading:
        return True
    return bool(scheduler.lora_overlap_loader.try_overlap_load_lora(req.lora_id, running))
