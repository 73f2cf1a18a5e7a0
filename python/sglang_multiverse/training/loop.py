"""One training run, top to bottom."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import nn

from sglang_multiverse.cpu import has_native_bf16

from .adapter import ADAPTER, NEW_ROWS, adapt, continue_adapter
from .attention import SEGMENTS
from .base import Base, load_base
from .checkpoint import (
    Progress,
    load_checkpoint,
    load_sharded,
    save_checkpoint,
    save_sharded,
)
from .config import ConfigError, TrainConfig
from .dataset import Corpus, DataError, build_corpus, read_conversations, shares_of
from .encode import Example
from .frozen_head import frozen_vocabulary
from .learner import Learner
from .packing import Packed, PackedCollator
from .report import Reporter, plot_loss
from .result import save_result
from .schedule import factor, set_rates

# What may differ between a run and its resumption: where the data are (a digest tells whether they
# are the same), where and how often it writes, and its limits.
FREE = ("data", "out", "log_every", "save_every", "threads", "resume", "steps", "minutes")

Row = Sequence[Example]


def train(config: TrainConfig) -> Path:
    """Train as told, from the last checkpoint if there is one.

    Returns:
        The folder of the trained adapter or model.

    Raises:
        ConfigError, DataError, BaseModelError, CheckpointError, EncodingError
    """
    if not config.out:
        raise ConfigError("out: a directory is needed")
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    accelerator = Accelerator(mixed_precision="bf16" if config.precision == "bf16" else "no")
    conversations = read_conversations(config.data)
    causal = config.attention == "causal"
    flex = accelerator.device.type == "cuda"
    base = load_base(
        config.base, with_tags=not causal, attention="flex_attention" if flex else SEGMENTS
    )
    corpus = build_corpus(
        conversations,
        base.tokenizer,
        base.tags,
        shares_of(config.mixture, config.epochs, causal=causal),
        config.block_size,
        config.seed,
    )
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder) if accelerator.is_main_process else contextlib.nullcontext():
        return _Run(accelerator, config, base, corpus, folder, flex=flex).train()


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Two runs would write their checkpoints over each other's.

    Raises:
        ConfigError: another run has it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"out: another run writes to {folder}") from error
        yield
    finally:
        os.close(handle)


class _Run:
    """A run's parts, and the loop over its steps."""

    def __init__(
        self,
        accelerator: Accelerator,
        config: TrainConfig,
        base: Base,
        corpus: Corpus,
        folder: Path,
        *,
        flex: bool,
    ) -> None:
        self.accelerator, self.config, self.base = accelerator, config, base
        self.corpus, self.folder = corpus, folder
        model = base.model
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        vocabulary = None
        self.continued: dict[str, Any] | None = None
        if config.method == "lora":
            model = adapt(model, config, base.new_rows)
            if config.continue_from:
                self.continued = continue_adapter(model, config)
            # Elsewhere the weights may move or be sharded, and a GPU has less to gain.
            if accelerator.device.type == "cpu":
                dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
                vocabulary = frozen_vocabulary(model, dtype)
        model.train()
        learner = Learner(model, flex=flex, vocabulary=vocabulary)
        optimizer = _optimizer(learner, config)
        self.learner, self.optimizer = accelerator.prepare(learner, optimizer)
        # Always the same shapes: kernels are compiled once, and the heap does not fragment
        # (on a CPU that had come to cost a third of the speed after a thousand steps).
        self.collate = PackedCollator(base.tags, base.tokenizer.pad_token_id, config.block_size)
        self.rows_per_step = (
            config.batch_rows * config.gradient_accumulation * accelerator.num_processes
        )
        passes = [self._usable(corpus.rows(number)) for number in range(config.epochs)]
        self.steps = sum(math.ceil(len(rows) / self.rows_per_step) for rows in passes)
        if not self.steps:
            raise DataError(
                f"data: {len(corpus.rows(0))} rows of block_size = {config.block_size} are fewer "
                f"than the {accelerator.num_processes} processes"
            )
        if config.steps:
            self.steps = min(self.steps, config.steps)
        self.identity = {
            **{name: value for name, value in config.plain.items() if name not in FREE},
            "examples": _digest(corpus),
            "processes": accelerator.num_processes,
        }
        self.sharded = accelerator.distributed_type == DistributedType.FSDP

    def train(self) -> Path:
        progress = (self._load() if self.config.resume else None) or Progress()
        main = self.accelerator.is_main_process
        with Reporter(self.folder, keep_until=progress.step, quiet=not main) as reporter:
            self._announce(reporter, progress)
            try:
                self._loop(progress, reporter)
            except KeyboardInterrupt:
                again = "the same command" if self.config.resume else "without --no-resume it"
                reporter.say(f"interrupted: {again} goes on from the last checkpoint")
                raise
            self._save(progress)
            target = self._finish(progress, reporter)
        self.accelerator.wait_for_everyone()
        return target

    def _loop(self, progress: Progress, reporter: Reporter) -> None:
        window = _Window(progress.seconds)
        started = time.monotonic() - progress.seconds
        for rows, after in self._batches(progress):
            if self._done(progress):
                break
            by = factor(
                self._fraction(progress, 0.5), self.config.warmup_ratio, self.config.lr_schedule
            )
            rate = set_rates(self.optimizer, by)
            number = progress.number
            loss, tokens, learned, norm = self._step(rows)
            progress.step += 1
            progress.number, progress.row = after
            progress.tokens += tokens
            progress.learned += learned
            progress.seconds = self._agreed(time.monotonic() - started)
            window.add(loss, tokens)
            if progress.step % self.config.log_every == 0 or self._done(progress):
                metrics = {
                    "step": progress.step,
                    "loss": window.loss,
                    "lr": rate,
                    "gradient_norm": norm,
                    "share": self.corpus.shares[number],
                    "tokens": progress.tokens,
                    "tokens_per_second": window.speed(progress.seconds),
                    "seconds": round(progress.seconds, 2),
                }
                reporter.step(metrics, self._fraction(progress))
                window = _Window(progress.seconds)
            if self.config.save_every and progress.step % self.config.save_every == 0:
                self._save(progress)

    def _batches(self, progress: Progress) -> Iterator[tuple[Sequence[Row], tuple[int, int]]]:
        """The rows of each step for all processes, and where the next step begins."""
        for number in range(progress.number, self.config.epochs):
            rows = self._usable(self.corpus.rows(number))
            start = progress.row if number == progress.number else 0
            for lo in range(start, len(rows), self.rows_per_step):
                hi = min(lo + self.rows_per_step, len(rows))
                after = (number + 1, 0) if hi == len(rows) else (number, hi)
                yield rows[lo:hi], after

    def _usable(self, rows: list[list[Example]]) -> list[list[Example]]:
        """So many that every process gets as many as the others."""
        return rows[: len(rows) - len(rows) % self.accelerator.num_processes]

    def _step(self, rows: Sequence[Row]) -> tuple[float, int, int, float]:
        """One optimizer step; returns loss per labelled token, tokens, labelled ones, norm."""
        count, rank = self.accelerator.num_processes, self.accelerator.process_index
        own = rows[rank::count]
        size = self.config.batch_rows
        batches = [self.collate(own[i : i + size]) for i in range(0, len(own), size)]
        learned = int(self._total(float(sum(batch.learned for batch in batches))))
        total = 0.0
        for i, batch in enumerate(batches):
            total += self._backward(batch, max(learned, 1), last=i == len(batches) - 1)
        norm = self.accelerator.clip_grad_norm_(
            self.learner.parameters(), self.config.grad_clip or math.inf
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        tokens = sum(len(example) for row in rows for example in row)
        return self._total(total) / max(learned, 1), tokens, learned, float(norm)

    def _backward(self, batch: Packed, learned: int, *, last: bool) -> float:
        """Accumulate the gradient of a batch's share in the step's mean loss."""
        wait = contextlib.nullcontext() if last else self.accelerator.no_sync(self.learner)
        with wait:
            loss = self.learner(batch.to(self.accelerator.device))
            # Processes average their gradients, while the mean is over the labels of all.
            self.accelerator.backward(loss * self.accelerator.num_processes / learned)
        return float(loss.detach())

    def _total(self, value: float) -> float:
        """The sum over processes."""
        if self.accelerator.num_processes == 1:
            return value
        tensor = torch.tensor(value, device=self.accelerator.device, dtype=torch.float64)
        return float(self.accelerator.reduce(tensor, "sum"))

    def _agreed(self, seconds: float) -> float:
        """The mean over processes, so that all stop at the same step."""
        return self._total(seconds) / self.accelerator.num_processes

    def _fraction(self, progress: Progress, ahead: float = 0.0) -> float:
        """How much of the run is over, `ahead` steps from now."""
        done = (progress.step + ahead) / max(self.steps, 1)
        if self.config.minutes:
            done = max(done, progress.seconds / (60 * self.config.minutes))
        return min(done, 1.0)

    def _done(self, progress: Progress) -> bool:
        late = self.config.minutes and progress.seconds >= 60 * self.config.minutes
        return progress.step >= self.steps or bool(late)

    def _module(self) -> nn.Module:
        module: nn.Module = self.accelerator.unwrap_model(self.learner)
        return module

    def _load(self) -> Progress | None:
        if self.sharded:
            return load_sharded(self.folder, self.accelerator, self.identity)
        return load_checkpoint(self.folder, self._module(), self.optimizer, self.identity)

    def _save(self, progress: Progress) -> None:
        if self.sharded:
            save_sharded(self.folder, progress, self.accelerator, self.identity)
        elif self.accelerator.is_main_process:
            save_checkpoint(self.folder, progress, self._module(), self.optimizer, self.identity)

    def _announce(self, reporter: Reporter, progress: Progress) -> None:
        module = self._module()
        trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        every = sum(p.numel() for p in module.parameters())
        examples = len(self.corpus.parallel) or len(self.corpus.sequential)
        reporter.say(
            f"{examples} examples, at most {self.steps} steps of {self.rows_per_step} rows of "
            f"{self.config.block_size} tokens; {trainable:,} of {every:,} parameters train"
        )
        if self.corpus.parallel:
            blocks, malformed = self.corpus.structure(self.base.tags)
            reporter.say(
                f"{blocks} examples open a parallel block; {malformed} are not well formed"
            )
        if (
            self.config.precision == "bf16"
            and self.accelerator.device.type == "cpu"
            and not has_native_bf16()
        ):
            reporter.say("precision: this processor emulates bf16; --precision fp32 is far faster")
        if self.corpus.too_long:
            reporter.say(f"{self.corpus.too_long} examples exceed block_size and are left out")
        if progress.step:
            reporter.say(f"resumed at step {progress.step}")

    def _finish(self, progress: Progress, reporter: Reporter) -> Path:
        state = None
        if self.sharded:
            gathered = self.accelerator.get_state_dict(self.learner)
            state = {name.removeprefix("model."): value for name, value in gathered.items()}
        name = ADAPTER if self.config.method == "lora" else "model"
        if not self.accelerator.is_main_process:
            return self.folder / name
        module: Any = self._module()
        facts = {"examples": self.identity["examples"], "processes": self.identity["processes"]}
        if self.continued is not None:
            facts["continued"] = self.continued
        target = save_result(
            self.folder,
            module.model,
            self.base.tokenizer,
            self.config,
            progress,
            facts,
            state=state,
        )
        reporter.say(plot_loss(self.folder))
        reporter.say(f"{progress.step} steps, {progress.tokens} tokens: {target}")
        return target


@dataclass(slots=True)
class _Window:
    """The steps since the last line of metrics."""

    since: float
    losses: float = 0.0
    count: int = 0
    tokens: int = 0

    def add(self, loss: float, tokens: int) -> None:
        self.losses += loss
        self.count += 1
        self.tokens += tokens

    @property
    def loss(self) -> float:
        return self.losses / self.count

    def speed(self, seconds: float) -> float:
        return self.tokens / max(seconds - self.since, 1e-9)


def _optimizer(learner: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; norms and the tags' rows without decay, and the latter at their own rate."""
    named = [(name, p) for name, p in learner.named_parameters() if p.requires_grad]
    rows = [p for name, p in named if NEW_ROWS in name]
    matrices = [p for name, p in named if NEW_ROWS not in name and p.ndim >= 2]
    vectors = [p for name, p in named if NEW_ROWS not in name and p.ndim < 2]
    groups = [
        {"params": matrices, "peak": config.lr, "weight_decay": config.weight_decay},
        {"params": vectors, "peak": config.lr, "weight_decay": 0.0},
        {"params": rows, "peak": config.lr_new_rows or config.lr, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def _digest(corpus: Corpus) -> str:
    """Names the examples that a run learns from."""
    digest = hashlib.sha256()
    for form in (corpus.parallel, corpus.sequential):
        digest.update(f"{len(form)}\n".encode())
        for example in form:
            digest.update(repr((example.ids, example.labels)).encode())
    return digest.hexdigest()[:16]
