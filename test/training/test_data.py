"""The generator of training data: what it promises of every example."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest
import reasoning_gym  # noqa: F401 - these tests are about it, so they do not skip without it

from sglang_multiverse.structure import MULTIVERSE, parse, walk
from sglang_multiverse.training.data import (
    KINDS,
    check,
    families_of,
    generate,
    score_parts,
    sequential_text,
)
from sglang_multiverse.training.data.__main__ import main
from sglang_multiverse.training.data.answers import answer_line, read_answers
from sglang_multiverse.training.data.chat import _exchanges, exchanges
from sglang_multiverse.training.data.families import FAMILIES
from sglang_multiverse.training.data.pieces import pieces
from sglang_multiverse.training.data.verify import InvalidExampleError, verify

SEEDS = range(60)
CASES = [(kind, family) for kind in KINDS for family in families_of(kind)]


def made(kind, family=None, split="train", seeds=SEEDS):
    return [generate(seed, split, kind, family) for seed in seeds]


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_every_example_is_read_back_as_it_was_meant(kind, family):
    tokenizer, tags = pieces()
    for example in made(kind, family):
        assert example.family == family and example.kind == kind
        trace = parse(tokenizer.encode(example.solution), tags)
        assert trace.well_formed
        assert tuple(len(b.branches) for b in walk(trace.blocks)) == example.branches
        assert bool(example.branches) == (kind in ("flat", "nested"))
        assert check(example, example.solution)
        verify(example, tokenizer, tags)


def test_kinds_differ_in_depth_and_width():
    assert {example.branches[0] for example in made("flat")} == {2, 3, 4, 5, 6}
    assert {len(example.branches) for example in made("nested")} == {2, 3}
    drawn = Counter(generate(seed, "train").kind for seed in range(400))
    assert set(drawn) == set(KINDS) and drawn["flat"] > 150


@pytest.mark.parametrize("family", list(FAMILIES))
def test_wrong_answers_fail(family):
    for example in made("flat", family, seeds=range(20)):
        lines = example.solution.splitlines()
        (last,) = (line for line in lines if line.startswith("Answer:"))
        first = example.answers[0]
        assert not check(example, "\n".join(lines[: lines.index(last)]))
        assert not check(example, f"{example.solution}\nThat is all.")
        assert not check(example, f"{last}; {len(example.answers) + 1}) 1")
        assert not check(example, f"{last}; 1) {first.text}")
        assert not check(example, answer_line(example.answers[1:]))
        wrong = last.replace(f" 1) {first.text}", f" 1) {_wrong(first.text)}", 1)
        assert wrong != last
        assert not check(example, wrong)
        assert score_parts(example, wrong) == [False] + [True] * (len(example.answers) - 1)


def _wrong(text):
    """Another number, or the list in another order or with one item more."""
    items = text.split(", ")
    if len(items) > 1:
        return ", ".join([*items[1:], items[0]])
    return str(int(text) + 1) if text.isdecimal() else f"{text}, {text}"


def test_numbers_off_by_one_are_wrong_although_the_scorer_tolerates_them():
    example = made("single", "number_sorting", seeds=[0])[0]
    numbers = [int(text) for text in example.answers[0].text.split(",")]
    near = ", ".join(str(number + 1) for number in numbers)
    assert not check(example, f"Answer: {near}")


def test_harmless_forms_of_an_answer_pass():
    example = made("single", "number_filtering", seeds=[0])[0]
    spaced = example.answers[0].text.replace(", ", ",  ")
    assert check(example, f"Answer:  {spaced} \n")


def test_answers_are_read_by_label():
    assert read_answers("so\nAnswer: 1.1) 3, 4; 1.2) a; 2) 5 ") == {
        "1.1": "3, 4",
        "1.2": "a",
        "2": "5",
    }
    assert read_answers("Answer: 1) 2; 1) 2") == {}
    assert read_answers("") == {}


def test_a_seed_gives_the_same_conversation_and_others_differ():
    for kind in (*KINDS, None):
        assert generate(7, "train", kind) == generate(7, "train", kind)
    assert len({example.prompt for example in made("flat")}) == len(SEEDS)


def test_generation_does_not_depend_on_the_process():
    script = (
        "from sglang_multiverse.training.data import generate;"
        "print([generate(s, 'held-out').record for s in range(8)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str([generate(s, "held-out").record for s in range(8)])


def test_no_held_out_prompt_and_no_held_out_part_is_in_training():
    train = [generate(seed, "train") for seed in range(1500)]
    held_out = [generate(seed, "held-out") for seed in range(300)]
    assert {e.prompt for e in train}.isdisjoint(e.prompt for e in held_out)
    parts = [{_content(a) for e in side for a in e.answers} - {None} for side in (train, held_out)]
    assert parts[0] and parts[1] and parts[0].isdisjoint(parts[1])


def _content(answer):
    """The reasoning-gym task of a part; derived steps of sequential problems have none."""
    if "source_index" not in answer.entry["metadata"]:
        return None
    return answer.family, FAMILIES[answer.family].outline(answer.entry)


def test_the_seeds_of_the_splits_are_disjoint():
    def indices(split):
        answers = [a for s in range(100) for a in generate(s, split).answers]
        return [i for a in answers if (i := a.entry["metadata"].get("source_index")) is not None]

    assert max(indices("train")) < min(indices("held-out"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_twin_has_no_tags_and_keeps_the_words(kind):
    for example in made(kind, seeds=range(20)):
        twin = sequential_text(example.solution)
        assert not any(tag in twin for tag in MULTIVERSE.tags)
        assert "" not in twin.splitlines()
        assert check(example, twin)
        words = example.solution
        for tag in MULTIVERSE.tags:
            words = words.replace(tag, " ")
        assert twin.split() == words.split()


def test_a_line_without_tags_stays_as_it_is():
    text = "Think.\n\n    code  \n<Parallel>\n<Goal> </Goal> \nSo<Path>:  \n\nEnd.\n"
    assert sequential_text(text) == "Think.\n\n    code\nSo:\n\nEnd.\n"


def test_chat_is_varied_unambiguous_and_split():
    everything = list(_exchanges())
    asked = [question for exchange in everything for question in exchange.asked]
    assert len(everything) >= 100
    assert len(set(asked)) == len(asked)
    assert len(exchanges("train")) + len(exchanges("held-out")) == len(everything)
    assert len(exchanges("held-out")) >= 5
    assert any(example.history for example in made("chat"))


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match="split: 'test' is not one of train, held-out"):
        generate(0, "test")
    with pytest.raises(ValueError, match="kind: 'deep' is not one of flat, nested"):
        generate(0, "train", "deep")
    with pytest.raises(ValueError, match=r"family: 'mixed' is not one of chain_sum.* 'single'"):
        generate(0, "train", "single", "mixed")
    with pytest.raises(ValueError, match="family: 'sudoku' is not one of chain_sum"):
        generate(0, "train", family="sudoku")


def test_a_broken_example_is_not_written():
    import dataclasses

    tokenizer, tags = pieces()
    example = generate(0, "train", "flat")
    for broken in (
        dataclasses.replace(example, solution=example.solution.replace("</Path>", "", 1)),
        dataclasses.replace(example, branches=(9,)),
        dataclasses.replace(example, solution=example.solution + "0"),
        dataclasses.replace(example, prompt="<Path>"),
    ):
        with pytest.raises(InvalidExampleError, match="train flat example of seed 0"):
            verify(broken, tokenizer, tags)


def test_the_command_writes_examples_and_a_card(tmp_path, capsys):
    main(["--out", str(tmp_path / "set"), "--examples", "40", "--held-out", "10", "--seed", "3"])
    files = {path.name for path in (tmp_path / "set").iterdir()}
    assert {"train.jsonl", "held-out.jsonl", "README.md", "lengths.png"} <= files
    for split, count in (("train", 40), ("held-out", 10)):
        lines = (tmp_path / "set" / f"{split}.jsonl").read_text().splitlines()
        assert len(lines) == count
        for line in lines:
            record = json.loads(line)
            again = generate(record["seed"], split)
            assert record == json.loads(json.dumps(again.record))
            assert [m["role"] for m in record["messages"][:2]] == ["user", "assistant"]
    card = (tmp_path / "set" / "README.md").read_text()
    assert "| all | 40 | 10 |" in card and "![lengths](lengths.png)" in card
    assert str(tmp_path) not in card
    assert "40 examples" in capsys.readouterr().out


def test_the_command_writes_one_split_of_one_family(tmp_path):
    command = "--examples 5 --split held-out --kind flat --family chain_sum --no-plots"
    main(["--out", str(tmp_path), *command.split()])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "held-out.jsonl"]
    records = [json.loads(line) for line in (tmp_path / "held-out.jsonl").read_text().splitlines()]
    assert {(r["split"], r["kind"], r["family"]) for r in records} == {
        ("held-out", "flat", "chain_sum")
    }
    assert len(records) == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--examples 0", "argument --examples: '0' is not a whole number of at least 1"),
        ("--examples 2 --seed -1", "argument --seed: '-1' is not a whole number of at least 0"),
        ("--examples 2 --split all", "'train', 'held-out', 'both'"),
        ("--examples 2 --kind deep", "'flat', 'nested'"),
        ("--examples 2 --kind single --family mixed", "family: 'mixed' is not one of chain_sum"),
        ("--examples 2 --tokenizer nowhere", "argument --tokenizer: nowhere is neither"),
    ],
)
def test_the_command_names_what_is_wrong(arguments, said, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(tmp_path / "set"), *arguments.split()])
    assert said.replace("'", "") in capsys.readouterr().err.replace("'", "")
    assert not (tmp_path / "set").exists()


def test_tokens_are_counted_with_a_bundled_base(tmp_path, monkeypatch, tiny_path):
    from sglang_multiverse.training.data import __main__ as command

    monkeypatch.setattr(command, "BUNDLED", {"base": None})
    monkeypatch.setattr(command, "find_gguf", lambda name: tiny_path)
    main(f"--out {tmp_path} --examples 2 --split train --no-plots --tokenizer base".split())
    assert f"the tokenizer {tiny_path.name}" in (tmp_path / "README.md").read_text()


def test_what_is_not_installed_is_named(monkeypatch, tmp_path, capsys):
    from sglang_multiverse.training.data import gym

    command = ["--out", str(tmp_path), "--examples", "2"]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit):
        main(command)
    assert "pip install matplotlib" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    gym._dataset.cache_clear()
    with pytest.raises(SystemExit):
        main([*command, "--no-plots"])
    assert "needs reasoning-gym" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_reasoning_gym_is_imported_late():
    script = (
        "import sys, sglang_multiverse.training.data;"
        "assert not {'reasoning_gym', 'matplotlib', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_exhausted_problems_end_the_run(monkeypatch):
    from sglang_multiverse.training.data import dataset

    monkeypatch.setattr(dataset, "MAX_REPEATS", 0)
    tokenizer, tags = pieces()
    with pytest.raises(dataset.ExhaustedError, match=r"train: only .* family letter_counting"):
        list(dataset.examples(10**6, 0, "train", tokenizer, tags, "single", "letter_counting"))
