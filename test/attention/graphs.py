"""SGLang's decode graph runner on a machine without CUDA: a graph is its Python, run again.

What a graph holds of the backend's Python state is what it was at capture, so that is put back
before each replay; only what lies in tensors is new, as on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from sglang.srt.model_executor.runner import decode_cuda_graph_runner as module

FROZEN = ("forward_metadata", "_step", "_rows", "_hidden")


class PythonGraphs:
    """In the place of `FullCudaGraphBackend`."""

    def __init__(self, runner: Any) -> None:
        self.backend = runner.attn_backend
        self.captured: dict[Any, tuple[Callable[[], Any], dict[str, Any]]] = {}
        self.replayed: list[Any] = []

    @contextlib.contextmanager
    def capture_session(self, stream: Any) -> Iterator[None]:
        yield

    @contextlib.contextmanager
    def replay_session(self) -> Iterator[None]:
        yield

    def capture_one(self, key: Any, forward: Callable[[], Any], **kwargs: Any) -> None:
        forward()
        state = {name: getattr(self.backend, name, None) for name in FROZEN}
        self.captured[key] = (forward, state)

    def can_run(self, batch: Any, key: Any) -> bool:
        return key in self.captured

    def replay(self, key: Any, batch: Any) -> Any:
        forward, state = self.captured[key]
        for name, value in state.items():
            setattr(self.backend, name, value)
        self.replayed.append(key)
        return forward()


def capture(runner: Any) -> PythonGraphs:
    """Give a `ModelRunner` on a CPU its decode graph runner; returns its graphs."""
    found: list[PythonGraphs] = []

    def make(of: Any) -> PythonGraphs:
        found.append(PythonGraphs(of))
        return found[-1]

    graph_runner = module.DecodeCudaGraphRunner
    session = contextlib.nullcontext(SimpleNamespace(stream=None))
    patches = (
        patch.object(module, "resolve_decode_backend", make),
        patch.object(module, "get_or_create_global_graph_capture_stream", lambda: None),
        patch.object(module, "graph_capture", lambda **_: session),
        patch.object(graph_runner, "warmup", lambda _: None),
    )
    # There are no events on a CPU, and no other stream to tell.
    graph_runner._record_in_graph_metadata_prep_done = lambda _: None
    graph_runner._publish_read_done = lambda *_, **__: None
    with contextlib.ExitStack() as stack:
        for one in patches:
            stack.enter_context(one)
        runner.decode_cuda_graph_runner = graph_runner(runner)
    return found[-1]
