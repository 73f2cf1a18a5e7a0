"""The Prometheus metrics, as the class that counts registers them."""

from __future__ import annotations

from prometheus_client import REGISTRY
from tables import code, table

from sglang_multiverse.engine.metrics import Metrics

PREFIX = "sglang:multiverse_"


def metrics() -> str:
    found = {family.name: family for family in REGISTRY.collect()}
    if not any(name.startswith(PREFIX) for name in found):
        Metrics({"model_name": ""})  # registers them, once in a process
        found = {family.name: family for family in REGISTRY.collect()}
    rows = [
        (code(name + ("_total" if one.type == "counter" else "")), one.type, one.documentation)
        for name, one in found.items()
        if name.startswith(PREFIX)
    ]
    return table(("Metric", "Type", "Meaning"), rows)
