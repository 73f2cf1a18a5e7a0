"""A `ModelRunner` without a scheduler: rows of the pool and batches are made by hand.

It is the real model, pool, backend and CUDA graph runner. On a machine without a GPU it runs
on the platform `multiverse_cpu`, with Triton interpreted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sglang_multiverse.attention import NAME, capture_both_graphs, register
from sglang_multiverse.kernels.visible import SeesBranches, Visible

TINY = Path(__file__).resolve().parent.parent / "models" / "tiny-multiverse"
GPU = torch.cuda.is_available()
CAPTURE = (
    "sglang.srt.model_executor.runner.decode_cuda_graph_runner"
    ".DecodeCudaGraphRunner._capture_one_stream"
)


@dataclass(eq=False)
class Row:
    """A row of the pool.

    Attributes:
        number: of the row in `req_to_token`.
        slots: of its tokens, in row order; a branch's begin with its parent's.
    """

    number: int
    slots: list[int] = field(default_factory=list)


class LoneRunner:
    """Owns every slot and row of the pool.

    Args:
        flags: of SGLang, beside the model and what this needs; they win.
        slots: of the pool.
    """

    def __init__(
        self,
        *flags: str,
        backend: str = NAME,
        model: Path = TINY,
        slots: int = 4096,
        rows: int = 32,
    ) -> None:
        from sglang.benchmark import one_batch
        from sglang.srt.plugins import load_plugins
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType
        from sglang.srt.server_args import PortArgs, prepare_server_args

        load_plugins()
        register()
        HookRegistry.register(CAPTURE, capture_both_graphs, HookType.BEFORE)
        HookRegistry.apply_hooks()
        arguments = ["--model-path", str(model), "--attention-backend", backend]
        arguments += ["--sampling-backend", "pytorch", "--grammar-backend", "none"]
        arguments += ["--max-total-tokens", str(slots), "--max-running-requests", str(rows)]
        arguments += [] if GPU else ["--device", "cpu", "--disable-overlap-schedule"]
        args = prepare_server_args([*arguments, "--dtype", "float32", *flags])
        one_batch.publish(
            args,
            role="scheduler",
            ranks=one_batch.SpawnRanks(
                world_rank=one_batch.spawn_world_rank(args, tp_rank=0, pp_rank=0), gpu_id=0
            ),
        )
        one_batch._init_process_global_configs()
        loaded, self.tokenizer = one_batch.load_model(args, PortArgs.init_new(args), 0, 0)
        self.runner = loaded.torch_runner
        self.device = self.runner.device
        self.slots = slots
        self.reset()

    @property
    def backend(self) -> Any:
        return self.runner.attn_backend

    @property
    def shares(self) -> bool:
        """Whether rows share a prefix in the last step, as the backend sees it."""
        return isinstance(self.backend, SeesBranches) and self.backend.prefixes.shared

    def reset(self) -> None:
        """Take everything back. Slot and row 0 are SGLang's, for padding."""
        generator = torch.Generator("cpu").manual_seed(0)
        order = torch.randperm(self.slots, generator=generator, device="cpu") + 1
        self._free = order.tolist()
        self._rows = 0

    def row(self, of: Row | None = None) -> Row:
        """A new row, which begins as `of` is now."""
        self._rows += 1
        row = Row(self._rows, list(of.slots) if of is not None else [])
        self._write(row, 0)
        return row

    def adopt(self, row: Row, slots: Sequence[int]) -> None:
        """Put `slots`, which hold KV already, behind those of `row`."""
        row.slots += slots
        self._write(row, len(row.slots) - len(slots))

    def _write(self, row: Row, start: int) -> None:
        table = self.runner.req_to_token_pool.req_to_token
        table[row.number, start : len(row.slots)] = torch.tensor(
            row.slots[start:], dtype=table.dtype, device=table.device
        )

    def grow(self, row: Row, count: int) -> list[int]:
        """Give `row` new slots, with whatever KV is in them."""
        new = self.take(count)
        self.adopt(row, new)
        return new

    def take(self, count: int) -> list[int]:
        """Slots that nobody has, in no order."""
        return [self._free.pop() for _ in range(count)]

    def extend(
        self,
        rows: Sequence[Row],
        ids: Sequence[Sequence[int]],
        positions: Sequence[int],
        hidden: torch.Tensor | None,
    ) -> torch.Tensor:
        """Write `ids[i]` behind `rows[i]`; returns the logits `[rows, vocabulary]` of their ends.

        `hidden` is int `[tokens, depth, 2]`, of all rows' new tokens in order.
        """
        prefix = [len(row.slots) for row in rows]
        counts = [len(new) for new in ids]
        slots = [slot for row, n in zip(rows, counts, strict=True) for slot in self.grow(row, n)]
        if hidden is not None:
            hidden = hidden.to(self.device, torch.int32).contiguous()
        batch = self._batch("EXTEND", rows, [t for new in ids for t in new], slots, positions)
        batch.extend_num_tokens = len(slots)
        batch.extend_seq_lens = self._ints(counts, torch.int32)
        batch.extend_prefix_lens = self._ints(prefix, torch.int32)
        batch.extend_start_loc = (batch.extend_seq_lens.cumsum(0) - batch.extend_seq_lens).int()
        batch.extend_prefix_lens_cpu = prefix
        batch.extend_seq_lens_cpu = counts
        batch.extend_logprob_start_lens_cpu = counts
        return self._forward(batch, Visible(hidden=hidden))

    def decode(
        self, rows: Sequence[Row], ids: Sequence[int], positions: Sequence[int], chains: Any = ()
    ) -> torch.Tensor:
        """Write one token behind each row; returns logits `[rows, vocabulary]`."""
        return self._forward(self.next_step(rows, ids, positions), Visible(chains=chains))

    def next_step(self, rows: Sequence[Row], ids: Sequence[int], positions: Sequence[int]) -> Any:
        """The `ForwardBatch` that writes one token behind each row."""
        slots = [slot for row in rows for slot in self.grow(row, 1)]
        return self._batch("DECODE", rows, ids, slots, positions)

    def _batch(
        self,
        mode: str,
        rows: Sequence[Row],
        ids: Sequence[int],
        slots: Sequence[int],
        positions: Sequence[int],
    ) -> Any:
        from sglang.srt.model_executor.forward_batch_info import (
            CaptureHiddenMode,
            ForwardBatch,
            ForwardMode,
        )
        from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

        lengths = [len(row.slots) for row in rows]
        batch = ForwardBatch(
            forward_mode=ForwardMode[mode],
            batch_size=len(rows),
            input_ids=self._ints(ids),
            req_pool_indices=self._ints([row.number for row in rows]),
            seq_lens=self._ints(lengths),
            out_cache_loc=self._ints(slots),
            seq_lens_sum=sum(lengths),
            orig_seq_lens=self._ints(lengths, torch.int32),
            seq_lens_cpu=torch.tensor(lengths),
            positions=self._ints(positions),
            capture_hidden_mode=CaptureHiddenMode.NULL,
            spec_algorithm=SpeculativeAlgorithm.NONE,
            global_num_token_non_padded_cpu=len(slots),
        )
        translator = self.runner.kv_index_translator
        translator.own_plan(batch).bind(batch, translator, cols=None)
        return batch

    def _forward(self, batch: Any, visible: Visible) -> torch.Tensor:
        if isinstance(self.backend, SeesBranches):
            self.backend.expect(visible)
        with torch.no_grad():
            done = self.runner.forward(batch)
        self.in_graph: bool = done.can_run_graph
        logits: torch.Tensor = done.logits_output.next_token_logits
        return logits.float().cpu()

    def _ints(self, values: Sequence[int], dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.tensor(list(values), dtype=dtype, device=self.device)
