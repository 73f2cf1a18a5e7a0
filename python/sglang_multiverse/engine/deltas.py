"""Live branches, as they leave the scheduler: token ids, each run with the path of its branch.

They become text in the HTTP process (`engine.http.live`), so that no step of the
model waits for it.
"""

from __future__ import annotations


class Deltas:
    """What every path has written since it was last asked."""

    def __init__(self) -> None:
        self.pending: list[tuple[str, list[int]]] = []

    def note(self, path: tuple[int, ...], token: int) -> None:
        name = ".".join(map(str, path))
        if self.pending and self.pending[-1][0] == name:
            self.pending[-1][1].append(token)
        else:
            self.pending.append((name, [token]))

    def take(self) -> list[tuple[str, list[int]]]:
        """`(path, ids)` in the order of generation."""
        taken, self.pending = self.pending, []
        return taken
