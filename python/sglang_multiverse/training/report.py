"""What a run says while it trains, and what it leaves behind to read."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

METRICS = "metrics.jsonl"


class Reporter:
    """A progress bar on a terminal, plain lines elsewhere; metrics to a file in both.

    Args:
        keep_until: the step that this run goes on from; later metrics are of a killed one.
        quiet: on all but the main process.
    """

    def __init__(self, folder: Path, *, keep_until: int, quiet: bool) -> None:
        self.folder, self.quiet = folder, quiet
        self._bar: Any = None
        self._task: Any = None
        if not quiet:
            _truncate(folder / METRICS, keep_until)

    def __enter__(self) -> Reporter:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.percentage:5.1f} %"),
                BarColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=1.0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def step(self, metrics: dict[str, Any], fraction: float) -> None:
        """One line of metrics: step, loss, lr, tokens_per_second and whatever else it holds."""
        if self.quiet:
            return
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
        text = (
            f"step {metrics['step']}  loss {metrics['loss']:.4f}  "
            f"{metrics['tokens_per_second']:.0f} tokens/s"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=fraction, description=text)
        else:
            self.say(f"{100 * fraction:5.1f} %  {text}  lr {metrics['lr']:.2e}")


def _truncate(path: Path, keep_until: int) -> None:
    """Drop what a killed run wrote after the checkpoint that this one starts from."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= keep_until:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue  # a line cut short by the kill
    path.write_text("".join(kept), encoding="utf-8")


def plot_loss(folder: Path) -> str:
    """Draw `loss.png` from the metrics; returns what to tell the user."""
    try:
        import matplotlib as mpl
    except ImportError:
        return "no plot: matplotlib is not installed"
    mpl.use("Agg")
    from matplotlib import pyplot

    if not (folder / METRICS).exists():
        return "no plot: there are no metrics"
    lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    points = [json.loads(line) for line in lines]
    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.plot([p["tokens"] for p in points], [p["loss"] for p in points])
    axes.set(xlabel="tokens trained on", ylabel="loss per labelled token", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / "loss.png", dpi=120)
    pyplot.close(figure)
    return f"loss curve in {folder / 'loss.png'}"


def machine() -> dict[str, Any]:
    """Where a run ran."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
