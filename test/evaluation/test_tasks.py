"""Every grader with right, wrong, equivalent and malformed answers; rows of local files."""

from __future__ import annotations

import json

import pytest

from sglang_multiverse.evaluation.errors import EvaluationError, MissingPackageError
from sglang_multiverse.evaluation.tasks import Grade, Spec, open_task


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_bundled_covers_every_kind_family_and_number_of_branches():
    task = open_task(Spec("bundled", seed=6_000_000))
    problems = task.problems()
    assert len(problems) == 324 and len({one.id for one in problems}) == 324
    assert len({repr(one.messages) for one in problems}) == 324
    cells = {(one.groups["kind"], one.groups["family"]) for one in problems}
    assert len(cells) == 7 + 7 + 6 + 6
    flat = {one.groups["branches"] for one in problems if one.groups["kind"] == "flat"}
    assert flat == {"2", "3", "4", "5", "6"}
    assert [one.id for one in problems[:50]] == [
        one.id for one in open_task(Spec("bundled", seed=6_000_000, limit=50)).problems()
    ]
    kinds = {one.groups["kind"] for one in open_task(Spec("bundled-nested", limit=9)).problems()}
    assert kinds == {"nested"}


@pytest.mark.parametrize("kind", ["flat", "nested", "sequential", "single"])
def test_bundled_grades_by_the_verifiers(kind):
    task = open_task(Spec(f"bundled-{kind}", seed=1, limit=6))
    for problem in task.problems():
        solution = problem.entry.solution
        line = f"Answer: {problem.reference}"
        assert task.grade(problem, solution).right
        assert task.grade(problem, line) == Grade(True, task.grade(problem, solution).extracted)
        assert task.grade(problem, solution + " and more").right is False
        assert task.grade(problem, line + "; 99) 7").right is False
        for text in ("", "Answer", solution[: len(solution) // 2], "\x00\ud800", "<Parallel>" * 9):
            assert task.grade(problem, text).right is False
        assert task.grade(problem, "I do not know.") == Grade(False, None)


def test_any_gym_data_set():
    task = open_task(Spec("gym:chain_sum", seed=3, limit=5))
    problems = task.problems()
    assert [p.reference for p in problems] == [p.reference for p in task.problems()]
    problem = problems[0]
    right = f"Well. <answer>{problem.reference}</answer>"
    assert task.grade(problem, right) == Grade(True, problem.reference)
    assert task.grade(problem, f"<answer> {problem.reference} </answer>").right
    assert task.grade(problem, "<answer>-12345</answer>") == Grade(False, "-12345")
    assert task.grade(problem, problem.reference) == Grade(False, None)
    assert task.grade(problem, "<answer>") == Grade(False, None)


@pytest.fixture(scope="module")
def aime():
    pytest.importorskip("sgl_eval", reason="sgl-eval is not installed")
    task = open_task(Spec("aime25"))
    return task, task.problems()


def test_aime_comes_with_its_problems(aime):
    for year in (24, 25, 26):
        found = open_task(Spec(f"aime{year}", limit=0)).problems() if aime else []
        assert len(found) == 30 and len({one.id for one in found}) == 30
        assert all(0 <= int(one.reference) <= 999 for one in found)
    _, problems = aime
    assert "\\boxed" in problems[0].messages[0]["content"]


@pytest.mark.parametrize(
    ("answer", "right", "extracted"),
    [
        ("so \\boxed{70}.", True, "70"),
        ("\\boxed{070}", True, "70"),
        ("\\boxed{140/2}", True, "140/2"),
        ("first \\boxed{3}, then \\boxed{70}", True, "70"),
        ("\\boxed{71}", False, "71"),
        ("the answer is 70", False, None),
        ("\\boxed{70", False, None),
        ("\\boxed{}", False, None),
        ("", False, None),
    ],
)
def test_aime_is_graded_by_sgl_eval(aime, answer, right, extracted):
    task, problems = aime
    assert problems[0].reference == "70"
    grade = task.grade(problems[0], answer)
    assert (grade.right, grade.extracted or None) == (right, extracted)


GPQA = {
    "Record ID": "rec1",
    "Question": "Which is it?",
    "Correct Answer": "this",
    "Incorrect Answer 1": "that",
    "Incorrect Answer 2": "neither",
    "Incorrect Answer 3": "both",
    "High-level domain": "Physics",
}


def test_gpqa_from_a_file(tmp_path):
    pytest.importorskip("sgl_eval", reason="sgl-eval is not installed")
    rows = [{**GPQA, "Record ID": f"rec{i}"} for i in range(24)]
    file = written(tmp_path / "gpqa.jsonl", rows)
    task = open_task(Spec("gpqa", file, seed=1))
    problems = task.problems()
    letters = {one.reference for one in problems}
    assert letters == set("ABCD")
    assert [p.reference for p in open_task(Spec("gpqa", file, seed=1)).problems()] == [
        p.reference for p in problems
    ]
    assert [p.reference for p in open_task(Spec("gpqa", file, seed=2)).problems()] != [
        p.reference for p in problems
    ]
    problem = problems[0]
    assert f"{problem.reference}) this" in problem.messages[0]["content"]
    assert problem.groups == {"domain": "Physics"}
    other = "ABCD".replace(problem.reference, "")[0]
    for text, right in [
        (f"Answer: {problem.reference}", True),
        (f"**Answer:** {problem.reference}", True),
        (f"hence \\boxed{{{problem.reference}}}", True),
        (f"Answer: {other}", False),
    ]:
        assert task.grade(problem, text).right is right
    for text in ("", "I would say this.", "Answer: 7"):
        assert task.grade(problem, text) == Grade(False, None)


def maths(tmp_path, answer):
    file = written(tmp_path / "maths.jsonl", [{"problem": "What is it?", "answer": answer}])
    task = open_task(Spec("maths", file))
    return task, task.problems()[0]


@pytest.mark.parametrize(
    ("wanted", "answer", "right"),
    [
        ("\\frac{1}{2}", "It is $\\boxed{\\frac{1}{2}}$.", True),
        ("\\frac{1}{2}", "It is $\\boxed{0.5}$.", True),
        ("\\frac{1}{2}", "It is $\\boxed{\\dfrac{2}{4}}$.", True),
        ("\\frac{1}{2}", "It is $\\boxed{\\frac{1}{3}}$.", False),
        ("(3, \\frac{\\pi}{2})", "\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}", True),
        ("2\\sqrt{2}", "\\boxed{\\sqrt{8}}", True),
        ("x^2 + 2x + 1", "\\boxed{(x+1)^2}", True),
        ("7", "First $x = 3$; so the answer is $\\boxed{7}$.", True),
        ("7", "First $\\boxed{7}$; hence the final answer is $3$.", True),
        ("7", "First $x = 7$; so the answer is $\\boxed{3}$.", False),
    ],
)
def test_maths_by_math_verify(wanted, answer, right, tmp_path):
    pytest.importorskip("math_verify", reason="math-verify is not installed")
    task, problem = maths(tmp_path, wanted)
    grade = task.grade(problem, answer)
    assert grade.right is right and grade.extracted is not None


@pytest.mark.parametrize("text", ["", "I do not know.", "\\boxed{", "\\frac{", "$$"])
def test_maths_without_an_answer(text, tmp_path):
    pytest.importorskip("math_verify", reason="math-verify is not installed")
    task, problem = maths(tmp_path, "7")
    assert task.grade(problem, text).right is False


def test_math500_from_a_file(tmp_path):
    row = {"problem": " How? ", "answer": "7", "unique_id": "u/1", "subject": "Algebra", "level": 2}
    task = open_task(Spec("math500", written(tmp_path / "rows.jsonl", [row, row | {"level": 3}])))
    problem, _ = task.problems()
    assert problem.id == "u/1" and problem.groups == {"subject": "Algebra", "level": "2"}
    assert problem.messages[0]["content"].endswith("\n\nHow?")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{oops\n", ":1: no JSON"),
        ("[1]\n", ":1: no JSON object"),
        ('{"problem": "p"}\n', "row 1 of .* has no text 'answer'; maths needs problem, answer"),
        ('{"problem": "p", "answer": 7}\n', "has no text 'answer'"),
        ("\n", "has no rows"),
    ],
)
def test_a_file_that_is_wrong(text, said, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    with pytest.raises(EvaluationError, match=said):
        open_task(Spec("maths", str(file))).problems()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(EvaluationError, match="cannot be read"):
        open_task(Spec("maths", str(tmp_path / "none"))).problems()


def test_the_hub_by_its_real_loader(tmp_path, monkeypatch):
    """The real `datasets`, on a local folder in the place of the hub's data set."""
    datasets = pytest.importorskip("datasets")
    written(tmp_path / "test.jsonl", [{"problem": "p", "answer": "7", "unique_id": "u"}])
    monkeypatch.setattr("sglang_multiverse.evaluation.tasks.maths._HUB", (str(tmp_path),))
    assert [one.id for one in open_task(Spec("math500")).problems()] == ["u"]

    def unreachable(*args, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(EvaluationError, match=r"no network; give its rows by --task-file"):
        open_task(Spec("math500")).problems()


@pytest.mark.parametrize(
    ("task", "module", "package"),
    [
        ("aime24", "sgl_eval", "sgl-eval"),
        ("maths", "math_verify", "math-verify"),
        ("math500", "datasets", "datasets"),
        ("gym:chain_sum", "reasoning_gym", "reasoning-gym"),
    ],
)
def test_what_is_not_installed_is_named(task, module, package, tmp_path, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    rows = written(tmp_path / "rows.jsonl", [{"problem": "p", "answer": "7"}])
    opened = open_task(Spec(task, rows if task == "maths" else ""))
    needed = opened.problems if task == "math500" else opened.prepare
    with pytest.raises(MissingPackageError, match=r"sglang-multiverse\[eval\]") as error:
        needed()
    assert error.value.package == package
