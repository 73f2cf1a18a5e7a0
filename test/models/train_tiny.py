"""Train the tiny Multiverse model that the tests and the demo serve.

    python test/models/train_tiny.py

builds the tokenizer, trains a small Llama from scratch under Multiverse
attention on the problems of `problems.py`, and measures it on held-out ones
with the oracle. Training can be stopped and resumed: run the command again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "python"), str(HERE.parent), str(HERE)]

import problems  # noqa: E402

import oracle  # noqa: E402
from sglang_multiverse.structure import (  # noqa: E402
    MULTIVERSE,
    TagTable,
    add_tags,
    parse,
    resolve_tags,
    walk,
)
from sglang_multiverse.training.collator import Batch, Collator  # noqa: E402
from sglang_multiverse.training.encode import IGNORE, Example, encode  # noqa: E402

VOCABULARY = 500  # before the twelve tags
CONTEXT = 2048
SHORTEST = 160  # tokens of the longest example at the start
POOL = 512  # examples sorted by length together, so that a batch holds little padding
MAX_ANSWER = 1200  # tokens; the longest solutions have about 800

# Words, single digits and single signs, each with the space before it, and single white spaces.
# Nothing merges across these, so that text tokenises the same in pieces (prompt, forced header,
# sampled rest) as in one.
PIECES = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]|\s"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE learned from training problems; it encodes any UTF-8 text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = ["user\nassistant\nsystem\n"] * 2000
    for seed in range(2000):
        problem = problems.generate(seed)
        solution = problem.solution
        for tag in MULTIVERSE.tags:
            solution = solution.replace(tag, "")
        texts += [problem.prompt, solution]
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    add_tags(fast)
    return fast


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """About 3M parameters, fp32. Heads are 64 wide: GPU attention kernels support that size."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def encode_problem(problem: problems.Problem, tokenizer: Any, tags: TagTable) -> Example:
    messages = [
        {"role": "user", "content": problem.prompt},
        {"role": "assistant", "content": problem.solution},
    ]
    return encode(messages, tokenizer, tags)


def longest(step: int, steps: int) -> int:
    """Tokens of the longest example in use: short ones first, all from the middle on.

    Looking something up is learned much sooner where there is little to look through.
    """
    return SHORTEST + int((CONTEXT - SHORTEST) * max(0.0, 2 * step / steps - 0.12) ** 2)


def pool_batches(
    pool: int, limit: int, seed: int, batch_tokens: int, tokenizer: Any, tags: TagTable
) -> list[list[Example]]:
    """Pool number `pool` of the training set, in batches of at most `batch_tokens` padded.

    Examples have at most `limit` tokens; the first pools hold shorter ones than the last.
    """
    made: list[Example] = []
    number = seed * 100_000_000 + pool * 100_000
    while len(made) < POOL:
        example = encode_problem(problems.generate(number), tokenizer, tags)
        number += 1
        if len(example) <= limit:
            made.append(example)
    made.sort(key=len)
    batches: list[list[Example]] = [[]]
    for example in made:
        if batches[-1] and (len(batches[-1]) + 1) * len(example) > batch_tokens:
            batches.append([])
        batches[-1].append(example)
    random.Random(f"{seed}/{pool}").shuffle(batches)
    return batches


def loss_of(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean loss and the share of labelled tokens whose argmax is right, both scalars."""
    hidden = model.model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    labels = batch["labels"][:, 1:]
    learned = labels != IGNORE
    logits = model.lm_head(hidden[:, :-1][learned])
    target = labels[learned]
    return functional.cross_entropy(logits, target), (logits.argmax(-1) == target).float().mean()


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Train to `args.steps`, from the last checkpoint if there is one. Returns the record."""
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    tags = resolve_tags(tokenizer)
    collate = Collator(tags, tokenizer.pad_token_id)
    model = build_model(tokenizer)
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=args.lr, weight_decay=0.05),
        torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    step = pool = index = tokens = 0
    limit = longest(0, args.steps)
    seconds = 0.0
    state_path = args.work / "state.pt"
    vocabulary = tokenizer.get_vocab()
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        # The vocabulary is learned from the problems: reworded ones renumber the tokens.
        if state["vocabulary"] != vocabulary:
            raise SystemExit(f"{state_path} is of another tokenizer; remove it to start afresh")
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, limit = state["step"], state["limit"]
        pool, index = state["pool"], state["index"]
        tokens, seconds = state["tokens"], state["seconds"]
        print(f"resumed at step {step}", flush=True)

    def checkpoint() -> None:
        args.work.mkdir(parents=True, exist_ok=True)
        state = {
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "step": step,
            "vocabulary": vocabulary,
            "limit": limit,
            "pool": pool,
            "index": index,
            "tokens": tokens,
            "seconds": seconds,
        }
        half_written = state_path.with_suffix(".new")
        torch.save(state, half_written)
        half_written.replace(state_path)
        save(model, tokenizer, args.out)

    model.train()
    batches: list[list[Example]] = []
    while step < args.steps:
        began = time.perf_counter()
        if not batches:
            batches = pool_batches(pool, limit, args.seed, args.batch_tokens, tokenizer, tags)
        batch = collate(batches[index])
        with torch.autocast("cpu", torch.bfloat16, enabled=args.autocast):
            loss, accuracy = loss_of(model, batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = args.lr * rate_at(step, args.steps, args.warmup)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast("cpu", torch.bfloat16, enabled=args.autocast):
                optimizer.step()
        model.zero_grad(set_to_none=True)
        step, index, tokens = step + 1, index + 1, tokens + batch["input_ids"].numel()
        if index == len(batches):
            batches, pool, index = [], pool + 1, 0
            limit = longest(step, args.steps)
        seconds += time.perf_counter() - began
        if step % args.log_every == 0:
            print(
                f"step {step} loss {loss.item():.4f} accuracy {accuracy.item():.4f} "
                f"norm {norm.item():.2f} lr {rate:.1e} limit {limit} tokens {tokens} "
                f"minutes {seconds / 60:.1f}",
                flush=True,
            )
        if step % args.save_every == 0:
            checkpoint()
    checkpoint()
    return {
        "command": " ".join(["python", "test/models/train_tiny.py", *command_options(args)]),
        "seed": args.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": step,
        "tokens": tokens,
        "minutes": round(seconds / 60, 1),
        "machine": f"{os.cpu_count()} cores {platform.machine()}, no GPU",
    }


class Muon(torch.optim.Optimizer):
    """Momentum whose update of each matrix is orthogonalised; learns in fewer tokens than AdamW.

    `torch.optim.Muon` does this in bfloat16, which is very slow on most CPUs; this is in float32.
    """

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for matrix in group["params"]:
                mean = self.state[matrix].setdefault("mean", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonalised(matrix.grad.lerp(mean, group["momentum"]))
                # With this factor an update's entries are as large as those of AdamW.
                update *= 0.2 * max(matrix.shape) ** 0.5
                matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """`U Vᵀ` of the singular value decomposition, roughly, by Newton-Schulz iteration."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine down to a fiftieth."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the checkpoint: weights rounded to float16, to be computed with in float32.

    Files are replaced one by one, so that a reader never sees half a file.
    """
    fresh = out.with_name(out.name + ".new")
    fresh.mkdir(parents=True, exist_ok=True)
    rounded = LlamaForCausalLM(model.config).half()
    rounded.load_state_dict(model.state_dict())
    rounded.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    rounded.save_pretrained(fresh)
    config = json.loads((fresh / "config.json").read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = "float32"
    (fresh / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    model.config.dtype = None
    tokenizer.save_pretrained(fresh)
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(fresh.iterdir()):
        path.replace(out / path.name)
        (out / path.name).chmod(0o644)
    fresh.rmdir()


def evaluate(out: Path, per_kind: int) -> dict[str, Any]:
    """Answer held-out problems greedily with the saved checkpoint.

    `exact` asks for the right final answer *and* a well-formed text with as many
    branches in every block as the problem has parts (none for one part).
    """
    tokenizer = AutoTokenizer.from_pretrained(out)
    tags = resolve_tags(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in problems.KINDS}
    for kind in problems.KINDS:
        for seed in range(per_kind):
            problem = problems.generate(seed, "held-out", kind)
            messages = [{"role": "user", "content": problem.prompt}]
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            prompt = tokenizer.encode(text, add_special_tokens=False)
            got = oracle.generate(model, tokenizer, prompt, MAX_ANSWER)
            trace = parse(got.ids, tags)
            answered = tokenizer.decode(got.ids, skip_special_tokens=True)
            right = problems.check(problem, answered)
            planned = trace.well_formed and problem.branches == tuple(
                len(block.branches) for block in walk(trace.blocks)
            )
            counts[kind]["problems"] += 1
            counts[kind]["answer"] += right
            counts[kind]["branches"] += planned
            counts[kind]["exact"] += right and planned
            counts[kind]["verbatim"] += answered == problem.solution
    total = sum(counts.values(), Counter())
    return {
        name: {"problems": c["problems"]}
        | {k: round(c[k] / c["problems"], 4) for k in ("exact", "answer", "branches", "verbatim")}
        for name, c in [("all", total), *counts.items()]
    }


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--out", type=Path, default=HERE / "tiny-multiverse")
    made.add_argument("--work", type=Path, default=ROOT / "build" / "tiny-multiverse")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--steps", type=int, default=4000)
    made.add_argument("--warmup", type=int, default=100)
    made.add_argument("--lr", type=float, default=3e-3)
    made.add_argument("--batch-tokens", type=int, default=2560)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument(
        "--autocast",
        action="store_true",
        help="matrix products in bfloat16: faster where the CPU has AMX, far slower elsewhere",
    )
    made.add_argument("--log-every", type=int, default=20)
    made.add_argument("--save-every", type=int, default=200)
    made.add_argument("--eval-per-kind", type=int, default=60)
    made.add_argument("--eval-only", action="store_true")
    return made


def command_options(args: argparse.Namespace) -> list[str]:
    """The options that differ from their defaults and change the result."""
    given = []
    for name in ("seed", "steps", "warmup", "lr", "batch_tokens", "threads", "autocast"):
        value = getattr(args, name)
        if value != parser().get_default(name):
            flag = "--" + name.replace("_", "-")
            given.append(flag if value is True else f"{flag} {value}")
    return given


def main() -> None:
    args = parser().parse_args()
    torch.set_num_threads(args.threads)
    record_path = args.out / "training.json"
    if args.eval_only:
        record = json.loads(record_path.read_text()) if record_path.exists() else {}
    else:
        record = train(args)
    record["held_out_accuracy"] = evaluate(args.out, args.eval_per_kind)
    record_path.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
