"""The data card's plots. matplotlib is optional and imported here only."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from .conversation import KINDS, SPLITS
from .verify import Measured


class MissingPlotsError(ImportError):
    """matplotlib is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "the data card's plots need matplotlib: pip install matplotlib, or pass --no-plots"
        )


def require() -> None:
    """Fail early rather than after the examples are made."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPlotsError from error


def draw(examples: dict[Any, list[Measured]], out: Path) -> list[str]:
    """Write the plots into `out`; the names of their files."""
    require()
    from matplotlib.figure import Figure

    some = [measured for split in SPLITS for measured in examples.get(split, [])]
    by_kind = {kind: [m for m in some if m.example.kind == kind] for kind in KINDS}

    def save(name: str, title: str, x: str, fill: Any) -> str:
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        axes = figure.subplots()
        fill(axes)
        axes.set(title=title, xlabel=x, ylabel="examples")
        # Without the time of writing, so that the same examples give the same file.
        figure.savefig(out / name, dpi=120, metadata={"Software": None})
        return name

    def lengths(axes: Any) -> None:
        values = [[m.tokens for m in by_kind[kind]] for kind in KINDS]
        axes.hist(values, bins=30, stacked=True, label=list(KINDS))
        axes.legend()

    def parallelism(axes: Any) -> None:
        kinds = [kind for kind in KINDS if any(m.example.branches for m in by_kind[kind])]
        values = [[m.statistics.degree_of_parallelism for m in by_kind[kind]] for kind in kinds]
        if kinds:
            axes.hist(values, bins=30, stacked=True, label=kinds)
            axes.legend()

    def depths(axes: Any) -> None:
        counts = Counter(m.statistics.depth for m in some)
        axes.bar([str(depth) for depth in sorted(counts)], [counts[d] for d in sorted(counts)])

    def families(axes: Any) -> None:
        counts = Counter(m.example.family for m in some)
        names = sorted(counts)
        axes.barh(names, [counts[name] for name in names])

    made = [
        save("lengths.png", "Length of a conversation", "tokens", lengths),
        save("parallelism.png", "Degree of parallelism", "tokens / longest path", parallelism),
        save("depth.png", "Depth of nesting", "blocks open at once", depths),
    ]
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    families(axes)
    axes.set(title="Families", xlabel="examples")
    figure.savefig(out / "families.png", dpi=120, metadata={"Software": None})
    return [*made, "families.png"]
