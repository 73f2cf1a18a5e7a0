"""Whole runs on the tiny model: resumed ones, adapters, the twin, the mixture."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from models import problems
from sglang_multiverse.structure import layout
from sglang_multiverse.training import loop
from sglang_multiverse.training.adapter import merged
from sglang_multiverse.training.base import load_base
from sglang_multiverse.training.checkpoint import CheckpointError
from sglang_multiverse.training.config import ConfigError, TrainConfig
from sglang_multiverse.training.dataset import Corpus, DataError, read_conversations, shares_of
from sglang_multiverse.training.encode import Example
from sglang_multiverse.training.merge import MergeError, merge
from sglang_multiverse.training.merge import main as merge_main


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for seed in range(12):
            problem = problems.generate(seed, "train")
            messages = [
                {"role": "user", "content": problem.prompt},
                {"role": "assistant", "content": problem.solution},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def untagged(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model without the tags' rows: a base whose vocabulary has to grow."""
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("untagged")
    spec = json.loads((tiny_path / "tokenizer.json").read_text(encoding="utf-8"))
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["special"]]
    size = len(spec["model"]["vocab"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.chat_template = (tiny_path / "chat_template.jinja").read_text(encoding="utf-8")
    model = AutoModelForCausalLM.from_pretrained(tiny_path, dtype=torch.float32)
    model.resize_token_embeddings(size)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert len(tokenizer) == size
    return folder


def settings(base: Path, data: str, out: Path) -> TrainConfig:
    return TrainConfig(
        base=str(base),
        data=(data,),
        out=str(out),
        lora_rank=4,
        lora_dropout=0.1,
        lr=1e-3,
        lr_new_rows=1e-2,
        block_size=2048,
        gradient_accumulation=2,
        epochs=6,
        steps=6,
        save_every=2,
        seed=5,
    )


@pytest.fixture
def config(untagged: Path, data: str, tmp_path: Path) -> TrainConfig:
    return settings(untagged, data, tmp_path / "whole")


@pytest.fixture(scope="module")
def trained(untagged: Path, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of a run with the settings of `config`; not to be changed."""
    return loop.train(settings(untagged, data, tmp_path_factory.mktemp("trained") / "whole"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    (file,) = folder.glob("*.safetensors")
    return load_file(file)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    method: Any,
    config: TrainConfig,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(
        config, method=method, lr_new_rows=0.0 if method == "full" else config.lr_new_rows
    )
    whole = trained if method == "lora" else loop.train(config)
    broken = dataclasses.replace(config, out=str(tmp_path / "broken"))
    step = loop._Run._step
    calls = iter(range(100))

    def dies_at_the_fourth(self: Any, rows: Any) -> Any:
        done = step(self, rows)
        if next(calls) == 3:
            raise RuntimeError("killed")  # between checkpoints: step 4 must be done again
        return done

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_step", dies_at_the_fourth)
        with pytest.raises(RuntimeError, match="killed"):
            loop.train(broken)
    torch.manual_seed(99)
    resumed = loop.train(broken)

    expected, found = weights(whole), weights(resumed)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert tensor.equal(found[name]), name
    lines = [
        [json.loads(line) for line in (run.parent / "metrics.jsonl").read_text().splitlines()]
        for run in (whole, resumed)
    ]
    assert [x["step"] for x in lines[1]] == list(range(1, 7))
    assert [x["loss"] for x in lines[0]] == [x["loss"] for x in lines[1]]


@pytest.mark.slow
def test_a_folder_that_another_run_writes_to_is_left_alone(config: TrainConfig) -> None:
    folder = Path(config.out)
    folder.mkdir()
    held = os.open(folder, os.O_RDONLY)  # as the other run holds it
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match=r"^out: another run writes to "):
        loop.train(config)
    assert not list(folder.iterdir())
    os.close(held)
    assert (loop.train(dataclasses.replace(config, steps=1)) / "adapter_config.json").is_file()


def test_training_learns_and_leaves_its_record(trained: Path) -> None:
    folder = trained.parent
    losses = [
        json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < losses[0] / 2
    record = json.loads((folder / "training.json").read_text())
    assert record["steps"] == 6 and record["tokens"] > 0 and record["config"]["seed"] == 5
    assert (folder / "loss.png").stat().st_size > 0
    assert not list(folder.glob("*.partial"))


def test_a_merged_adapter_gives_the_adapted_model_s_logits(
    config: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    folder = trained
    with torch.no_grad():
        base = load_base(config.base)
        before = base.model.get_input_embeddings().weight.clone()
        ids = torch.tensor([[*base.tokenizer.encode("Tom has 2 cups."), *base.new_rows]])
        adapted = PeftModel.from_pretrained(base.model, str(folder)).eval()
        expected = adapted(input_ids=ids).logits
        model, _ = merged(folder, config.base)
        torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
        assert model.lm_head.weight is model.model.embed_tokens.weight

        # Written and loaded as any other checkpoint is, too.
        again = load_base(str(merge(folder, tmp_path / "saved")))
        assert again.new_rows == ()
        torch.testing.assert_close(
            again.model(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4
        )

        # Of the embeddings, only the tags' rows were trained and are stored.
        changed = (model.get_input_embeddings().weight != before).any(-1).nonzero()[:, 0].tolist()
        assert set(changed) <= set(base.new_rows) and len(changed) >= 10
        stored = weights(folder)
        assert not [
            name for name in stored if name.endswith(("embed_tokens.weight", "lm_head.weight"))
        ]
        rows = [t for name, t in stored.items() if "trainable_tokens_delta" in name]
        assert [tuple(t.shape) for t in rows] == [(12, model.config.hidden_size)]


def test_a_twin_is_merged_without_the_tags(config: TrainConfig, tmp_path: Path) -> None:
    folder = loop.train(dataclasses.replace(config, attention="causal", lr_new_rows=0.0, steps=1))
    again = load_base(str(merge(folder, tmp_path / "saved")), with_tags=False)
    assert again.model.get_input_embeddings().weight.shape[0] == len(again.tokenizer)
    assert "<Path>" not in again.tokenizer.get_vocab()


def test_a_step_does_not_depend_on_how_its_rows_are_batched(
    config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, lora_dropout=0.0, block_size=700, steps=1)
    found = [
        weights(
            loop.train(
                dataclasses.replace(
                    config,
                    out=str(tmp_path / f"{rows}"),
                    batch_rows=rows,
                    gradient_accumulation=4 // rows,
                )
            )
        )
        for rows in (1, 2, 4)
    ]
    for other in found[1:]:
        for name, tensor in found[0].items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_a_run_shorter_than_a_line_of_metrics(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = loop.train(dataclasses.replace(config, steps=1, log_every=5)).parent
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 1
    assert (folder / "loss.png").exists()
    assert "examples open a parallel block; 0 are not well formed" in capsys.readouterr().err


def test_data_that_moved_is_the_same_data(config: TrainConfig, tmp_path: Path) -> None:
    loop.train(dataclasses.replace(config, steps=1))
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(Path(config.data[0]).read_bytes())
    loop.train(dataclasses.replace(config, steps=2, data=(str(moved),)))
    moved.write_text("\n".join(moved.read_text().splitlines()[1:]))
    with pytest.raises(CheckpointError, match="another examples"):
        loop.train(dataclasses.replace(config, steps=3, data=(str(moved),)))


@pytest.mark.parametrize("native", [True, False])
def test_bf16_that_is_emulated_is_said(
    native: bool,
    config: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(loop, "has_native_bf16", lambda: native)
    # accelerate keeps one precision per process: the other tests'.
    monkeypatch.setattr(AcceleratorState, "_shared_state", {})
    loop.train(dataclasses.replace(config, steps=1, block_size=300, precision="bf16"))
    assert ("this processor emulates bf16" in capsys.readouterr().err) is not native


def test_a_run_goes_on_from_another_s_adapter(
    config: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    first = trained
    second = dataclasses.replace(
        config, continue_from=str(first.parent), out=str(tmp_path / "second"), seed=9, steps=1
    )
    # A rate of nothing leaves the weights as they were found.
    same = loop.train(dataclasses.replace(second, lr=0.0, lr_new_rows=0.0, lora_dropout=0.0))
    expected, found = weights(first), weights(same)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert tensor.equal(found[name]), name
    record = json.loads((same.parent / "training.json").read_text())
    assert record["steps"] == 1
    assert record["continued"] == json.loads((first.parent / "training.json").read_text())

    # What it learned is there in the first loss: the same row, dropout aside.
    fresh = dataclasses.replace(second, continue_from="", out=str(tmp_path / "fresh"))
    losses = [
        json.loads((run.parent / "metrics.jsonl").read_text())["loss"]
        for run in (same, loop.train(dataclasses.replace(fresh, lora_dropout=0.0)))
    ]
    assert losses[0] < losses[1] - 0.05


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"lora_rank": 8}, "another r"),
        ({"lora_alpha": 8.0}, "another lora_alpha"),
        ({"attention": "causal", "lr_new_rows": 0.0}, "another trainable_token_indices"),
        ({"continue_from": "nowhere"}, "nowhere holds no adapter/ of a run"),
    ],
)
def test_an_adapter_of_another_shape_is_not_gone_on_from(
    other: dict[str, Any], message: str, config: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    second = {"continue_from": str(trained.parent), "out": str(tmp_path / "second")}
    with pytest.raises(ConfigError, match=message):
        loop.train(dataclasses.replace(config, **{**second, **other}))


def test_what_cannot_be_gone_on_from_is_said_before_training(
    config: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    first = Path(shutil.copytree(trained.parent, tmp_path / "first"))
    (first / "training.json").unlink()
    out = tmp_path / "second"
    with pytest.raises(ConfigError, match=r"training\.json cannot be read"):
        loop.train(dataclasses.replace(config, continue_from=str(first), out=str(out)))
    assert not (out / "metrics.jsonl").exists()
    with pytest.raises(ConfigError, match="continue_from: only with method = lora"):
        dataclasses.replace(config, continue_from="run", method="full", lr_new_rows=0.0)


def test_what_cannot_be_merged_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MergeError, match="exists already"):
        merge(tmp_path / "adapter", tmp_path)
    assert merge_main(["--adapter", str(tmp_path), "--out", str(tmp_path / "model")]) == 2
    assert "holds no adapter" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_other_settings_is_refused(config: TrainConfig) -> None:
    loop.train(dataclasses.replace(config, steps=1))
    with pytest.raises(CheckpointError, match=r"another lr, seed"):
        loop.train(dataclasses.replace(config, lr=0.5, seed=6))


def test_new_rows_start_as_the_mean_of_their_word(untagged: Path) -> None:
    base = load_base(str(untagged))
    assert len(base.new_rows) == 12
    embeddings = base.model.get_input_embeddings().weight
    for row in base.new_rows:
        word = base.tokenizer.convert_ids_to_tokens(row).strip("<>")
        ids = base.tokenizer.encode(word, add_special_tokens=False)
        torch.testing.assert_close(embeddings[row], embeddings[ids].mean(0))


def test_the_shares_of_the_mixture() -> None:
    assert shares_of("ramp", 5, causal=False) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert shares_of("ramp", 1, causal=False) == (1.0,)
    assert shares_of("parallel", 2, causal=False) == (1.0, 1.0)
    assert shares_of("parallel", 2, causal=True) == (0.0, 0.0)


def test_an_example_that_turned_parallel_stays_so() -> None:
    parallel = [Example([i, 1], [i, 1]) for i in range(40)]
    sequential = [Example([i, 0], [i, 0]) for i in range(40)]
    corpus = Corpus(parallel, sequential, shares_of("ramp", 5, causal=False), 16, seed=1)
    turned: set[int] = set()
    for number in range(5):
        flat = [example.ids for row in corpus.rows(number) for example in row]
        assert sorted(ids[0] for ids in flat) == list(range(40))
        now = {ids[0] for ids in flat if ids[1]}
        assert len(now) == number * 10 and turned <= now
        turned = now
    assert corpus.rows(3) == corpus.rows(3) != corpus.rows(4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r":1 is not an object with messages"),
        ("[]", r":1 is not an object with messages"),
        ('{"messages": [{"role": "user", "content": "a"}]}', r":1: no assistant turn"),
        ('{"messages": [{"role": "assistant", "content": 1}]}', r":1: no assistant turn, or"),
        ('{"messages": 1}', r":1 is not an object with messages"),
        (
            '{"messages": [{"role": "assistant", "content": "a"}], "sequential_messages": []}',
            r":1: no assistant turn",
        ),
    ],
)
def test_a_broken_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(line)
    with pytest.raises(DataError, match=message):
        list(read_conversations([str(path)]))


def test_a_line_ends_where_json_lines_end(tmp_path: Path) -> None:
    content = "one\u2028two\u2029three\x85four"
    path = tmp_path / "d.jsonl"
    line = json.dumps({"messages": [{"role": "assistant", "content": content}]}, ensure_ascii=False)
    path.write_text(f"{line}\r\n\n{line}\n", encoding="utf-8", newline="")
    found = [one.messages for one in read_conversations([str(path)])]
    assert found == [[{"role": "assistant", "content": content}]] * 2


def test_the_twin_reads_plain_text_under_plain_attention(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    build = loop.build_corpus

    def spy(*arguments: Any) -> Iterator[Any]:
        corpus = build(*arguments)
        seen.extend([arguments[1], arguments[2], corpus])
        return corpus

    monkeypatch.setattr(loop, "build_corpus", spy)
    loop.train(dataclasses.replace(config, attention="causal", lr_new_rows=0.0, steps=1))
    tokenizer, tags, corpus = seen
    assert not corpus.parallel and corpus.sequential
    for example in corpus.sequential:
        text = tokenizer.decode(example.ids)
        assert "<Path>" not in text and "Goal" not in text
        placed = layout(example.ids, tags)
        assert placed.positions.tolist() == list(range(len(example)))
        assert placed.hidden.size == 0
