"""LoRA on the layers, and whole rows for the tags that the vocabulary grew by."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .base import load_base
from .config import ConfigError, TrainConfig

NEW_ROWS = "trainable_tokens_delta"
"""What peft calls the parameter that holds the trained embedding rows."""
ADAPTER = "adapter"
RECORD = "training.json"
"""What a run's folder holds: the adapter, and how it came to be."""
SHAPE = ("r", "lora_alpha", "target_modules", "trainable_token_indices")
"""What two adapters of one base must share to hold each other's weights."""


def adapt(model: Any, config: TrainConfig, new_rows: Sequence[int]) -> Any:
    """Wrap a model so that only the adapter and the new rows train.

    Tied embeddings stay tied: the head reads the same trained rows.
    """
    from peft import LoraConfig, get_peft_model

    rows = list(new_rows)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    layers = {"embed_tokens": rows} if tied else {"embed_tokens": rows, "lm_head": rows}
    return get_peft_model(
        model,
        LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=list(config.lora_targets),
            trainable_token_indices=layers if rows else None,
            task_type="CAUSAL_LM",
        ),
    )


def continue_adapter(model: Any, config: TrainConfig) -> dict[str, Any]:
    """Give a model that `adapt` wrapped the weights of the run in `config.continue_from`.

    Returns:
        That run's record.

    Raises:
        ConfigError: there is no adapter or no record, or it is of another base, shape or
            vocabulary.
    """
    from peft import PeftConfig, load_peft_weights, set_peft_model_state_dict

    folder = Path(config.continue_from) / ADAPTER
    if not (folder / "adapter_config.json").exists():
        raise ConfigError(f"continue_from: {config.continue_from} holds no {ADAPTER}/ of a run")
    try:
        record: dict[str, Any] = json.loads((folder.parent / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"continue_from: {folder.parent / RECORD} cannot be read: {error}"
        ) from error
    found, wanted = PeftConfig.from_pretrained(str(folder)), model.peft_config["default"]
    differ = [name for name in SHAPE if getattr(found, name) != getattr(wanted, name)]
    if found.base_model_name_or_path != config.base:
        differ.append("base")
    if differ:
        raise ConfigError(f"continue_from: {folder} has another {', '.join(differ)}")
    set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    return record


def save_adapter(model: Any, folder: Path, state: dict[str, Any] | None = None) -> None:
    """Adapter and rows only: some MB, not the embedding matrix.

    Args:
        state: the gathered weights where `model` holds a shard of them.
    """
    model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=state)
    # peft's blank form of a model card says nothing about this one.
    (folder / "README.md").unlink(missing_ok=True)


def merged(
    folder: str | Path,
    base: str,
    *,
    with_tags: bool = True,
    on_stage: Callable[[str], None] = lambda _: None,
) -> tuple[Any, Any]:
    """The base with an adapter merged into its weights, as a plain model, and its tokenizer.

    Args:
        on_stage: hears what begins.
    """
    from peft import PeftModel

    on_stage("loading the base")
    loaded = load_base(base, with_tags=with_tags)
    on_stage("merging")
    adapted = PeftModel.from_pretrained(loaded.model, str(folder))
    model = adapted.merge_and_unload()
    model.tie_weights()
    return model.eval(), loaded.tokenizer
