"""What a run leaves: what training reads, the same in every form, whole or not at all."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from sglang_multiverse.curator.__main__ import main
from sglang_multiverse.curator.demo import bundled, serving, write_source
from sglang_multiverse.structure import add_tags, parse, resolve_tags
from sglang_multiverse.training.data.splits import split_of
from sglang_multiverse.training.dataset import build_corpus, read_conversations

from .test_resume import many

SPLITS = ("train", "held-out")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("output")
    known = many(40)
    write_source(known, folder / "chains.jsonl")
    with serving(known) as server:
        run = ["run", str(folder / "chains.jsonl"), "--out", str(folder / "out")]
        assert main([*run, "--base-url", server.url]) == 0
    return folder / "out"


def read(out, name):
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


def test_training_reads_it(out, tiny_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_path)
    add_tags(tokenizer)
    tags = resolve_tags(tokenizer)
    for name in ("train", "train-sequential"):
        conversations = read_conversations([str(out / f"{name}.jsonl")])
        corpus = build_corpus(conversations, tokenizer, tags, (0.0, 1.0), 8192, 0)
        assert len(corpus.parallel) == len(read(out, "train")) and corpus.too_long == 0
        blocks, malformed = corpus.structure(tags)
        kinds = [row["kind"] for row in read(out, name)]
        parallel = sum(kind != "sequential" for kind in kinds)
        assert (blocks, malformed) == (parallel if name == "train" else 0, 0)


def test_the_ramp_begins_with_the_sources_own_text(out, tiny_path):
    """Sequential passes read the chain as it was, not the parallel text without its tags."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_path)
    add_tags(tokenizer)
    conversations = read_conversations([str(out / "train.jsonl")])
    corpus = build_corpus(conversations, tokenizer, resolve_tags(tokenizer), (0.0, 1.0), 8192, 0)
    rows, twins = read(out, "train"), read(out, "train-sequential")
    for row, twin, form, plain in zip(rows, twins, corpus.parallel, corpus.sequential, strict=True):
        assert row["messages"][1]["content"] in tokenizer.decode(form.ids)
        assert twin["messages"][1]["content"] in tokenizer.decode(plain.ids)
    changed = [row for row in rows if row["branches"]]
    assert changed and all("First, let x" not in row["messages"][1]["content"] for row in changed)
    assert any("First, let x" in tokenizer.decode(one.ids) for one in corpus.sequential)


def test_parquet_and_lines_say_the_same(out):
    for split in SPLITS:
        table = pq.read_table(out / f"{split}.parquet").to_pylist()
        parallel, sequential = read(out, split), read(out, f"{split}-sequential")
        assert len(table) == len(parallel) == len(sequential) > 0
        for row, one, twin in zip(table, parallel, sequential, strict=True):
            assert row == one
            assert row["sequential_messages"] == twin["messages"]


def test_splits_go_by_the_question(out):
    for split in SPLITS:
        for row in read(out, split):
            assert row["split"] == split == split_of(row["messages"][0]["content"])


def test_numbers_are_those_of_the_text(out):
    from sglang_multiverse.training.data.pieces import pieces

    tokenizer, tags = pieces()
    for row in read(out, "train"):
        found = parse(tokenizer.encode(row["messages"][1]["content"]), tags).statistics()
        assert row["answer_tokens"] == found.tokens
        assert row["critical_path_tokens"] == found.critical_path_tokens
        assert row["degree_of_parallelism"] == pytest.approx(found.degree_of_parallelism)
        assert (row["depth"], sum(row["branches"])) == (found.depth, found.branches)
        assert row["kind"] == ("sequential", "flat", "nested")[min(found.depth, 2)]


def test_the_card_has_tables_and_plots(out):
    card = (out / "README.md").read_text()
    kinds = [row["kind"] for split in SPLITS for row in read(out, split)]
    assert card.startswith("# Multiverse examples curated from sequential reasoning")
    assert f"| all | {len(read(out, 'train'))} | {len(read(out, 'held-out'))} |" in card
    assert "nested" in kinds and "| train | nested |" in card
    assert str(out.parent) not in card and "127.0.0.1" not in card
    for name in ("lengths", "parallelism", "depth", "families"):
        assert (out / f"{name}.png").stat().st_size > 1000 and f"({name}.png)" in card


def test_a_file_that_was_not_finished_is_written_anew(tmp_path):
    known = bundled()
    write_source(known, tmp_path / "chains.jsonl")
    folder = tmp_path / "out"
    with serving(known) as server:
        run = ["run", str(tmp_path / "chains.jsonl"), "--out", str(folder), "--no-plots"]
        assert main([*run, "--base-url", server.url]) == 0
        whole = (folder / "train.jsonl").read_bytes()
        (folder / ".train.jsonl.new").write_text("half a li")
        (folder / ".train.parquet.new").write_text("PAR1")
        assert main([*run, "--base-url", server.url]) == 0
    assert (folder / "train.jsonl").read_bytes() == whole
    assert not list(folder.glob(".*.new"))
