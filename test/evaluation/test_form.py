"""The form of texts, read without a tokenizer: the same as with one."""

from __future__ import annotations

import pytest

from sglang_multiverse.evaluation.form import Form, read_form
from sglang_multiverse.evaluation.tasks import Spec, open_task
from sglang_multiverse.structure import parse, walk


def test_every_solution_has_the_branches_that_are_asked_for():
    problems = open_task(Spec("bundled", seed=1)).problems()
    for problem in problems:
        assert read_form(problem.entry.solution) == Form(problem.branches, True)
    nested = {one.branches for one in problems if one.groups["kind"] == "nested"}
    assert max(map(len, nested)) > 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("</Conclusion>", ""),
        ("</Parallel>", ""),
        ("</Goal>", "</Goal></Goal>"),
        ("<Path>\n1:", "1:"),
        ("<Outline>\n1:", "1:"),
        ("", ""),
    ],
)
def test_it_is_what_the_tokens_say(old, new, tiny_tokenizer, tiny_tags):
    for problem in open_task(Spec("bundled", seed=2, limit=54)).problems():
        text = problem.entry.solution.replace(old, new, 1)
        trace = parse(tiny_tokenizer.encode(text, add_special_tokens=False), tiny_tags)
        branches = tuple(len(block.branches) for block in walk(trace.blocks))
        assert read_form(text) == Form(branches, trace.well_formed)
        if problem.branches:
            assert trace.well_formed == (old == new)


def test_text_without_tags_is_well_formed():
    assert read_form("") == read_form("a < b </p>") == Form((), True)
    assert read_form("<Parallel>") == Form((), False)
