"""The model that training starts from: a directory, a hub name, or a bundled base."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from sglang_multiverse.structure import MULTIVERSE, Dialect, TagTable, add_tags, resolve_tags

from .packaged import BUNDLED, BaseModelError, BundledBase, find_gguf


@dataclass(frozen=True, slots=True)
class Base:
    """A model with its tokenizer, ready to be trained.

    Attributes:
        model: a `transformers` causal language model, float32.
        tags: the tags' ids; a table that matches no id where none were asked for.
        new_rows: ids added to the vocabulary, ascending; empty where it had them all.
    """

    model: Any
    tokenizer: Any
    tags: TagTable
    new_rows: tuple[int, ...]


def load_base(
    name: str,
    *,
    with_tags: bool = True,
    attention: str = "sdpa",
    dialect: Dialect = MULTIVERSE,
) -> Base:
    """Load a base model and give it the dialect's tags.

    Args:
        name: a key of `BUNDLED`, a directory, or a name on the Hugging Face hub.
        with_tags: without, the vocabulary stays as it is: the autoregressive twin.
        attention: the `transformers` attention implementation.

    Raises:
        BaseModelError: naming what is missing.
    """
    if name in BUNDLED:
        model, tokenizer = _load_bundled(name, BUNDLED[name], attention)
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=torch.float32, attn_implementation=attention
            )
        except (OSError, ValueError) as error:
            raise BaseModelError(
                f"base: cannot load {name!r} as a directory or hub name "
                f"(bundled: {', '.join(BUNDLED)}): {error}"
            ) from error
    if tokenizer.eos_token_id is None or not tokenizer.chat_template:
        raise BaseModelError(f"base: {name!r} needs an EOS token and a chat template")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not with_tags:
        return Base(model, tokenizer, no_tags(dialect), ())
    new_rows = grow(model, tokenizer, dialect)
    return Base(model, tokenizer, resolve_tags(tokenizer, dialect), new_rows)


def no_tags(dialect: Dialect = MULTIVERSE) -> TagTable:
    """A table of ids that no text holds: everything reads as one plain sequence."""
    return TagTable.from_ids(dialect, {tag: -1 - i for i, tag in enumerate(dialect.tags)})


@torch.no_grad()
def grow(model: Any, tokenizer: Any, dialect: Dialect = MULTIVERSE) -> tuple[int, ...]:
    """Add the missing tags; each new row starts as the mean of the tag word's rows.

    Returns:
        The new ids. Tied embeddings stay tied.
    """
    old = len(tokenizer)
    words = {tag: _word_ids(tokenizer, tag) for tag in dialect.tags}
    add_tags(tokenizer, dialect)
    new_rows = tuple(range(old, len(tokenizer)))
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    # Many checkpoints pad their embeddings; then there is room and nothing to resize.
    if inputs.weight.shape[0] < len(tokenizer):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    matrices = [inputs.weight]
    if outputs is not None and outputs.weight is not inputs.weight:
        matrices.append(outputs.weight)
    for row in new_rows:
        for matrix in matrices:
            matrix[row] = matrix[words[tokenizer.convert_ids_to_tokens(row)]].mean(0)
    return new_rows


def _word_ids(tokenizer: Any, tag: str) -> list[int]:
    """The tokens of `Path` for `<Path>` and of `/Path` for `</Path>`."""
    word = re.sub(r"[<>]", "", tag)
    ids: list[int] = tokenizer.encode(word, add_special_tokens=False)
    return ids


def _load_bundled(name: str, bundled: BundledBase, attention: str) -> tuple[Any, Any]:
    path = find_gguf(name)
    folder = str(path.parent)
    source: dict[str, Any] = {"gguf_file": path.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **source)
        quantised = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **source)
    except ImportError as error:
        raise BaseModelError(f"base: {name!r} needs accelerate and gguf: {error}") from error
    model = _plain(quantised, attention)
    _fix_tokenizer(tokenizer, bundled)
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    return model, tokenizer


def _plain(quantised: Any, attention: str) -> Any:
    """The same weights in a fresh model: one read from GGUF counts as quantised, and such a
    model can be neither saved nor trained."""
    settings = quantised.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(key, None)
    config = AutoConfig.for_model(**settings)
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation=attention
    )
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    return model


def _fix_tokenizer(tokenizer: Any, bundled: BundledBase) -> None:
    if tokenizer.convert_tokens_to_ids(bundled.eos) is None:
        raise BaseModelError(f"base: {bundled.gguf} has no token {bundled.eos}")
    tokenizer.eos_token = bundled.eos
