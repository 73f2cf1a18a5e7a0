"""How the making of a model is shown: a bar on a terminal, a line per stage elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

TITLE = "making the bundled model, once"


class Bar:
    """A context manager around `model_path`, and its `on_progress`; silent until it is called."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress: Progress | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *args: object) -> None:
        if self.progress is not None:
            self.progress.stop()

    def __call__(self, stage: str, share: float) -> None:
        text = f"{TITLE}: {stage}"
        if not self.console.is_terminal:
            self.console.print(text, highlight=False, soft_wrap=True)
            return
        if self.progress is None:
            self.progress = self._start()
        self.progress.update(self.progress.task_ids[0], description=text, completed=share)

    def _start(self) -> Progress:
        columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), BarColumn())
        progress = Progress(*columns, TimeElapsedColumn(), console=self.console)
        progress.add_task(TITLE, total=1.0)
        progress.start()
        return progress
