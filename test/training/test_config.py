"""Settings from files and flags, and the recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglang_multiverse.training.__main__ import main, read_config
from sglang_multiverse.training.config import RECIPES, ConfigError, TrainConfig, make_config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lrr": 1}, r"lrr: no such setting; there are: base, .*seed"),
        ({"lr": -1.0}, r"lr: -1.0 is out of range; allowed: at least 0"),
        ({"lr": float("nan")}, r"lr: nan is out of range"),
        ({"lr": "fast"}, r"lr: 'fast' is not a number"),
        ({"warmup_ratio": 1.5}, r"warmup_ratio: 1.5 .* from 0 to 1"),
        ({"epochs": 2.5}, r"epochs: 2.5 is not a whole number"),
        ({"epochs": True}, r"epochs: True is not a whole number"),
        ({"epochs": [1]}, r"epochs: \[1\] is not a whole number"),
        ({"method": "qlora"}, r"method: 'qlora' is not one of lora, full"),
        ({"resume": "yes"}, r"resume: 'yes' is not true or false"),
        ({"data": 3}, r"data: 3 is not a list of strings"),
        ({"out": 3}, r"out: 3 is not a string"),
        ({"method": "full", "lr_new_rows": 1e-3}, r"lr_new_rows: only 0"),
        ({"attention": "causal", "mixture": "ramp"}, r"mixture: only parallel"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(settings)


def test_flags_outrank_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('lr = 1\nepochs = 4\ndata = ["a", "b"]\nresume = false\n')
    config = read_config(["--config", str(file), "--lr", "0.5", "--lora-targets", "q_proj,v_proj"])
    assert config == TrainConfig(
        lr=0.5, epochs=4, data=("a", "b"), resume=False, lora_targets=("q_proj", "v_proj")
    )


def test_yaml_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("lr: 0.25\nmethod: full\n")
    assert read_config(["--config", str(file)]) == TrainConfig(lr=0.25, method="full")


def test_a_recipe_is_found_by_its_name() -> None:
    by_name, by_path = (
        read_config(["--config", config])
        for config in ("smollm2-135m-cpu", str(RECIPES / "smollm2-135m-cpu.toml"))
    )
    assert by_name == by_path != TrainConfig()
    with pytest.raises(ConfigError, match=r"config: smollm3 is neither .*smollm2-135m-cpu-twin"):
        read_config(["--config", "smollm3"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.toml", "lr = = 1", r"config: .*c\.toml is not TOML"),
        ("c.toml", "[optimizer]\nlr = 1", "optimizer: no such setting"),
        ("c.yaml", "lr: [1", r"config: .*c\.yaml is not YAML"),
        ("c.yaml", "- lr", r"config: .*c\.yaml holds no table"),
    ],
)
def test_a_file_that_is_no_table_of_settings(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(["--config", str(file)])


def test_the_command_reports_an_error_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--epochs", "0"]) == 2
    assert capsys.readouterr().err == "error: epochs: 0 is out of range; allowed: at least 1\n"


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_parse(recipe: Path) -> None:
    read_config(["--config", str(recipe)])


def test_the_twin_differs_in_its_attention_only() -> None:
    model, twin = (
        read_config(["--config", str(RECIPES / f"smollm2-135m-cpu{suffix}.toml")]).plain
        for suffix in ("", "-twin")
    )
    assert {key for key in model if model[key] != twin[key]} == {"attention"}


def test_the_published_recipe() -> None:
    config = read_config(["--config", str(RECIPES / "qwen2.5-32b-8gpu.toml")])
    assert (config.lr, config.warmup_ratio, config.weight_decay) == (1e-5, 0.05, 1e-4)
    assert (config.beta1, config.beta2, config.lr_schedule) == (0.9, 0.95, "cosine")
    assert (config.block_size, config.epochs, config.mixture) == (32768, 8, "ramp")


def test_the_fsdp_file_is_one_that_accelerate_reads() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(RECIPES / "fsdp-8gpu.yaml"))
    assert config.num_processes == 8
    assert config.fsdp_config["fsdp_version"] == 2
