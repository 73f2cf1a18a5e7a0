"""The prompts: what they show as good answers is good by the curator's own checks."""

from __future__ import annotations

import re

import pytest

from sglang_multiverse.curator.dialogue import read_answer
from sglang_multiverse.curator.draft import Draft, Example, Rules
from sglang_multiverse.curator.finish import finished, make_counter
from sglang_multiverse.curator.prompt import FIRST, Attempt, messages, prompt
from sglang_multiverse.curator.schema import Rewrite
from sglang_multiverse.curator.sentences import numbered, split
from sglang_multiverse.curator.stages import STAGES
from sglang_multiverse.curator.steps import MAX_STEPS


@pytest.fixture(scope="module")
def drafts():
    """The example of the prompts, before and after each stage."""
    question = re.search(r"^Question: (.*)$", prompt("common"), re.MULTILINE)[1]
    shown = re.findall(r"^\[\d+\] (.*)$", prompt("common"), re.MULTILINE)
    text = " ".join(shown)
    found = [Draft(Example("example", question, text), tuple(split(text)))]
    assert numbered(found[0].sentences) in prompt("common")
    for stage in STAGES:
        answer = read_answer(prompt(stage.name).rpartition("For the example")[2], stage.schema)
        found.append(stage.read(found[-1], answer, Rules()))
    return found


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_example_answers_are_good(drafts, stage):
    assert stage.remarks(drafts[stage.number]) == []


def test_the_example_becomes_three_paths_that_stand_alone(drafts):
    made = finished(drafts[-1], make_counter(""), least=1.0)
    assert made["kind"] == "flat" and made["branches"] == [3]
    paths = re.findall(r"<Path>\n(.*?)\n</Path>", made["parallel"], re.DOTALL)
    assert [path[:13] for path in paths] == ["1: If p leave", "2: Suppose th", "3: The case h"]
    assert not re.search(r"First|Next|Again|left", " ".join(paths))


def test_the_example_needs_its_rewriting(drafts):
    """Without it, every path begins as one of a sequence."""
    unchanged = STAGES[4].read(
        drafts[4], Rewrite(sentences=[], outlines=[], conclusions=[]), Rules()
    )
    assert [remark[:4] for remark in STAGES[4].remarks(unchanged)] == ["G1.1", "G1.2", "G1.3"]


def test_limits_that_prompts_name():
    assert f"more than {MAX_STEPS} at one level" in prompt("outline")


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_all_stages_begin_alike(stage):
    """Question and reasoning are read once by an endpoint with a prefix cache."""
    before = Attempt(1, "it was wrong", "# Groups\n\nG1")
    opening = messages(stage.name, "What?", ["So. ", "It is 3."], ["# Steps\n\nS1: a"], before)
    system, user = (message["content"] for message in opening)
    assert system == prompt("common").strip()
    assert user.startswith("# Question\n\nWhat?\n\n# Reasoning\n\n[1] So.\n[2] It is 3.\n\n# Steps")
    assert "# An earlier attempt\n\nIt failed, so take care: it was wrong" in user
    assert "\n\n## Groups\n\nG1\n\n# Task: " in user
    assert "earlier attempt" not in messages(stage.name, "What?", ["So."], [], FIRST)[1]["content"]
