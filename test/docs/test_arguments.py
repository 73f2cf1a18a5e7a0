"""The check of written commands: it takes what runs, and refuses what would not."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.arguments import RefusedError, check, commands_in
from docs.blocks import blocks_of, missing

PAGE = """
<!-- not run: an hour -->
```bash
train="python -m x"
$train --a "b c"
```

```text
no command
```
~~~python
print(1)
~~~
"""


def test_blocks_have_their_language_mark_and_line() -> None:
    first, second, third = blocks_of("page.md", PAGE)
    assert (first.language, first.mark, first.reason, first.line) == (
        "bash",
        "not run",
        "an hour",
        3,
    )
    assert first.text == 'train="python -m x"\n$train --a "b c"\n'
    assert not first.runs and not second.is_command and third.runs


def test_the_shell_splits_the_commands(tmp_path: Path) -> None:
    text = 'a="python -m x"\n$a --b "c d" \\\n  "" # e\nmake f & curl "$(python g)"\n'
    found = commands_in(text, tmp_path)
    assert found[0] == ["python", "-m", "x", "--b", "c d", ""]
    assert sorted(found[1:]) == [["curl", ""], ["make", "f"], ["python", "g"]]


@pytest.mark.parametrize("text", ["rm -r /", "python 'x", "echo $nowhere", "benchmark/none.sh"])
def test_what_the_shell_or_we_do_not_know_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError):
        commands_in(text, tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "python -m sglang_multiverse.training --config smollm2-135m-cpu --steps many",
        "python -m sglang_multiverse.training --config no-such-recipe",
        "python -m sglang_multiverse.training.data --out d --examples 0",
        "python -m sglang_multiverse.curator run s --out o --preset s2k",
        "python -m sglang_multiverse.evaluation run --out o --samples 2",
        "python -m sglang_multiverse.evaluation judge",
        "python -m sglang_multiverse.launch_server --multiverse-max-depht 2",
        "python -m sglang_multiverse.launch_server --multiverse-max-depth 99",
        "python -m sglang_multiverse.launch_server --prot 8000",
        "python -m sglang_multiverse.view",
        "python -m nothing.known",
        "python benchmark/nowhere.py",
        "python benchmark/step.py --no-such-flag 1",
        "sglang serve --model-paht m",
        "make nothing",
        "pip install .[nothing]",
        "benchmark/gpu/proof.sh --rehaerse",
    ],
)
def test_what_would_not_run_is_refused(command: str) -> None:
    with pytest.raises((RefusedError, ImportError)):
        check(command.split())


def test_printed_lines_come_in_order() -> None:
    assert missing("a … c\nd\n", "x\na b c\nd e\n") == ""
    assert missing("d\na\n", "a\nd\n") == "a"
