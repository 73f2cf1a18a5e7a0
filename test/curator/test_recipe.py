"""The recipe in docs/curator.md: each command is one that exists, and a small set goes through."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from sglang_multiverse.curator.__main__ import build_parser, main
from sglang_multiverse.curator.config import make_config
from sglang_multiverse.curator.demo import serving
from sglang_multiverse.training.__main__ import main as train
from sglang_multiverse.training.__main__ import read_config

from .test_resume import many

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "curator.md").read_text(encoding="utf-8")
PROGRAMS = ("python", "accelerate", "sglang")


def commands() -> list[list[str]]:
    """What the recipe's shell would run."""
    block = r"## From s1K-1.1 to a trained model\n\n```(?:bash)?\n(.*?)```"
    recipe = re.search(block, PAGE, re.DOTALL)[1]
    printing = "".join(
        f'{name}() {{ printf "%s\\0" {name} "$@"; printf "\\n"; }}\n' for name in PROGRAMS
    )
    # Nothing else is found there.
    done = subprocess.run(
        ["/bin/bash", "-euc", printing + recipe],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/nowhere"},
    )
    return [line.split("\0")[:-1] for line in done.stdout.splitlines()]


def test_every_command_of_the_recipe_exists():
    found = commands()
    curated = [words[3:] for words in found if words[1:3] == ["-m", "sglang_multiverse.curator"]]
    assert [words[0] for words in curated] == ["run", "run", "report", "show"]
    for words in curated:
        args = vars(build_parser().parse_args(words))
        if args.pop("command") == "run":
            flags = {name: args[name] for name in args if name not in ("source", "out")}
            assert make_config(flags).preset == "s1k"
    launched = [words for words in found if words[:2] == ["accelerate", "launch"]]
    assert len(launched) == 2
    for words in launched:
        assert (ROOT / words[words.index("--config_file") + 1]).is_file()
        at = words.index("-m")
        assert words[at + 1] == "sglang_multiverse.training"
        config = read_config(words[at + 2 :])
        # Written by the commands before.
        assert config.data == ("curated/train.jsonl",)
    served = [words for words in found if "--model-path" in words]
    assert [words[0] for words in served] == ["sglang", "python"]
    assert served[1][2] == "sglang_multiverse.launch_server" and find_spec(served[1][2])
    assert len(found) == len(curated) + len(launched) + len(served)


@pytest.mark.slow
def test_a_small_set_with_the_columns_of_s1k_becomes_a_model(tmp_path, tiny_path):
    import datasets

    known = [dataclasses.replace(one, answer="It is so.") for one in many(6)]
    columns = {
        "question": [one.question for one in known],
        "deepseek_thinking_trajectory": [one.chain for one in known],
        "deepseek_attempt": [one.answer for one in known],
        "solution": ["so"] * len(known),
    }
    (tmp_path / "s1K").mkdir()
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "s1K" / "train.parquet")
    out = str(tmp_path / "curated")
    run = ["run", f"hf:{tmp_path / 's1K'}", "--preset", "s1k", "--out", out]
    with serving(known) as server:
        run += ["--base-url", server.url, "--concurrency", "64", "--no-plots"]
        assert main([*run, "--dry-run"]) == 0
        assert not Path(out).exists()
        assert main(run) == 0
    assert main(["report", "--out", out]) == 0
    assert main(["show", "--out", out]) == 0

    few = ["--base", str(tiny_path), "--block-size", "4096", "--epochs", "2", "--lr", "1e-3"]
    few += ["--method", "full", "--data", f"{out}/train.jsonl"]
    assert train([*few, "--mixture", "ramp", "--out", str(tmp_path / "run")]) == 0
    assert train([*few, "--attention", "causal", "--out", str(tmp_path / "twin")]) == 0
    losses = {}
    for name in ("run", "twin"):
        assert (tmp_path / name / "model" / "model.safetensors").is_file()
        steps = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses[name] = [json.loads(line)["loss"] for line in steps]
        assert losses[name][-1] < 0.9 * losses[name][0]
    # The ramp begins where the twin stays: with the chains as they were.
    half = len(losses["twin"]) // 2
    assert losses["run"][:half] == pytest.approx(losses["twin"][:half], rel=1e-3)
    assert losses["run"][half:] != pytest.approx(losses["twin"][half:], rel=1e-2)
