"""SGLang attention backends that call our kernels. Nothing here is imported before it is used."""

from .registry import NAME, capture_both_graphs, prefer, register

__all__ = ["NAME", "capture_both_graphs", "prefer", "register"]
