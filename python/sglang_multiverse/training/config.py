"""Everything a training run is told, in one place: flags and files are read off this class."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..settings import out_of_range, setting


class ConfigError(ValueError):
    """A setting that is unknown or out of range; the message names it and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The settings of one run; `help` in each field's metadata says what it is."""

    base: str = setting("smollm2-135m-instruct", "base model: bundled name, directory or hub name")
    data: tuple[str, ...] = setting((), "JSONL files of conversations")
    out: str = setting("", "directory for checkpoints, metrics and the result")

    attention: Literal["multiverse", "causal"] = setting(
        "multiverse", "causal trains the autoregressive twin: same texts without tags"
    )
    mixture: Literal["parallel", "ramp"] = setting(
        "parallel",
        "ramp: the share of examples with their parallel structure rises from 0 to 1 over the "
        "epochs, the others are trained as sequential text",
    )

    method: Literal["lora", "full"] = setting("lora", "what is trained")
    continue_from: str = setting(
        "", "folder of a run whose adapter is trained further, with a fresh optimizer (LoRA only)"
    )
    lora_rank: int = setting(32, "LoRA rank", least=1)
    lora_alpha: float = setting(64.0, "LoRA alpha", least=0)
    lora_dropout: float = setting(0.0, "LoRA dropout", least=0, most=0.99)
    lora_targets: tuple[str, ...] = setting(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        "modules that LoRA adapts",
    )

    lr: float = setting(1e-5, "peak learning rate", least=0)
    lr_new_rows: float = setting(
        0.0, "peak learning rate of the tags' embeddings; 0: as lr (LoRA only)", least=0
    )
    lr_schedule: Literal["cosine", "constant"] = setting("cosine", "after the warm-up")
    warmup_ratio: float = setting(0.05, "share of the run with a rising rate", least=0, most=1)
    weight_decay: float = setting(1e-4, "of AdamW", least=0)
    beta1: float = setting(0.9, "of AdamW", least=0, most=0.9999)
    beta2: float = setting(0.95, "of AdamW", least=0, most=0.99999)
    grad_clip: float = setting(1.0, "gradient norm limit; 0: none", least=0)

    block_size: int = setting(1024, "tokens per packed row", least=16)
    batch_rows: int = setting(1, "packed rows per device and backward pass", least=1)
    gradient_accumulation: int = setting(1, "backward passes per step", least=1)
    gradient_checkpointing: bool = setting(False, "recompute activations to save memory")
    epochs: int = setting(1, "passes over the data", least=1)
    steps: int = setting(0, "stop after that many steps; 0: no limit", least=0)
    minutes: float = setting(
        0.0, "stop after that many minutes of training, checkpoints included; 0: no limit", least=0
    )
    precision: Literal["fp32", "bf16"] = setting("fp32", "bf16: autocast over fp32 weights")
    seed: int = setting(0, "of the data order, LoRA's initial weights and dropout", least=0)

    log_every: int = setting(1, "steps per line of metrics", least=1)
    save_every: int = setting(100, "steps per checkpoint; 0: only at the end", least=0)
    threads: int = setting(0, "CPU threads; 0: as torch has it", least=0)
    resume: bool = setting(True, "continue from the last checkpoint in out, if there is one")

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            _check_range(spec.name, getattr(self, spec.name), spec.metadata)
        if self.lr_new_rows and self.method == "full":
            raise ConfigError(
                "lr_new_rows: only 0 with method = full, where the rows are part of one matrix"
            )
        if self.continue_from and self.method == "full":
            raise ConfigError(
                "continue_from: only with method = lora; give a trained model as base instead"
            )
        if self.attention == "causal" and self.mixture == "ramp":
            raise ConfigError("mixture: only parallel with attention = causal, which has no tags")

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON and TOML have it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }


def hints() -> dict[str, Any]:
    """Field name → type."""
    return get_type_hints(TrainConfig)


def make_config(*sources: Mapping[str, Any]) -> TrainConfig:
    """A config from several sources, later ones first in rank.

    Raises:
        ConfigError
    """
    known = hints()
    settings: dict[str, Any] = {}
    for source in sources:
        for name, value in source.items():
            if name not in known:
                raise ConfigError(f"{name}: no such setting; there are: {', '.join(known)}")
            settings[name] = _convert(name, value, known[name])
    return TrainConfig(**settings)


RECIPES = Path(__file__).with_name("recipes")


def recipes() -> dict[str, Path]:
    """The configs that come with the package, by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}


def read_config_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML or YAML file, or in the recipe of that name, unchecked.

    Raises:
        ConfigError: the file cannot be read as a table of settings.
    """
    path = recipes().get(str(path), path)
    if path.suffix not in (".toml", ".yaml", ".yml"):
        raise ConfigError(
            f"config: {path} is neither a file that ends in .toml, .yaml or .yml nor a recipe "
            f"({', '.join(recipes())})"
        )
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if path.suffix == ".toml" else _read_yaml(text, path)
    except OSError as error:
        raise ConfigError(f"config: cannot read {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config: {path} is not TOML: {error}") from error


def _read_yaml(text: str, path: Path) -> dict[str, Any]:
    import yaml

    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"config: {path} is not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"config: {path} holds no table of settings")
    return settings


def _convert(name: str, value: Any, hint: Any) -> Any:
    """A value of a file or a flag (text) as the field's type."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{name}: {value!r} is not one of {', '.join(get_args(hint))}")
        return value
    if get_origin(hint) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise ConfigError(f"{name}: {value!r} is not a list of strings")
        return tuple(items)
    if hint is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: {value!r} is not true or false")
        return value
    if hint is str:
        if not isinstance(value, str):
            raise ConfigError(f"{name}: {value!r} is not a string")
        return value
    # A number; a file's `3.5` or `true` is no whole number, a flag's text is read as one.
    if isinstance(value, str | int | float) and not (
        isinstance(value, bool) or (hint is int and isinstance(value, float))
    ):
        try:
            return hint(value)
        except ValueError:
            pass
    kind = "a whole number" if hint is int else "a number"
    raise ConfigError(f"{name}: {value!r} is not {kind}")


def _check_range(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    if wrong := out_of_range(name, value, metadata):
        raise ConfigError(wrong)
