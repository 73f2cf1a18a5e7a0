"""Everything a run is told, in one place: the command line is read off this class."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from ..settings import check_address, check_ranges, convert, from_flags, out_of_range, setting
from .draft import Rules
from .errors import CuratorError
from .tree import Limits

STAGE_NAMES = ("outline", "graph", "refill", "plan", "rewrite")
PRESETS: dict[str, dict[str, str]] = {
    "plain": {name: name for name in ("question", "thinking", "answer", "reference", "id")},
    "s1k": {
        "question": "question",
        "thinking": "deepseek_thinking_trajectory",
        "answer": "deepseek_attempt",
        "reference": "solution",
    },
}
"""Our field → the source's column, by preset."""
OWN_FIELDS = {
    *("model", "messages", "response_format", "stream", "n"),
    *("temperature", "top_p", "max_tokens", "max_completion_tokens"),
}
"""Fields of a request that `extra_body` cannot set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """The settings of one run; `help` in each field's metadata says what it is."""

    base_url: str = setting("http://127.0.0.1:30000/v1", "an OpenAI-compatible endpoint")
    model: str = setting("", "the model asked; empty: the first that the endpoint lists")
    api_key_env: str = setting("OPENAI_API_KEY", "environment variable that holds the key")
    concurrency: int = setting(16, "examples in work, and so calls at once", least=1, most=4096)
    timeout: float = setting(600.0, "seconds of silence until a call is tried again", least=0.1)
    retries: int = setting(
        5, "further tries after 429, 5xx, time-outs and lost connections", least=0, most=50
    )
    requests_per_minute: int = setting(0, "most requests a minute; 0: no limit", least=0)
    tokens_per_minute: int = setting(0, "most tokens a minute, about; 0: no limit", least=0)
    response_format: Literal["auto", "json_schema", "none"] = setting(
        "auto", "json_schema asks for guided decoding; auto does without where it is refused"
    )

    temperature: float = setting(0.0, "of the sampling", least=0, most=2)
    top_p: float = setting(1.0, "of the sampling", least=0, most=1)
    max_answer_tokens: int = setting(8192, "most tokens of one answer", least=16)
    extra_body: str = setting(
        "", "a JSON object of further fields of every request, such as chat_template_kwargs"
    )
    price_in: float = setting(0.0, "price of a million prompt tokens", least=0)
    price_out: float = setting(0.0, "price of a million answer tokens", least=0)
    stage: tuple[str, ...] = setting(
        (), 'other values for one stage, such as "rewrite model=M temperature=0.6"; repeatable'
    )

    repairs: int = setting(3, "times that an answer is sent back to be mended", least=0, most=20)
    rounds: int = setting(
        2, "times that an example goes through the stages before it fails", least=1, most=20
    )
    max_tokens: int = setting(0, "tokens of a run after which no call is made; 0: none", least=0)
    max_cost: float = setting(0.0, "cost of a run after which no call is made; 0: none", least=0)

    preset: Literal["plain", "s1k"] = setting("plain", "which columns the source has")
    columns: tuple[str, ...] = setting(
        (), "other columns: question=…,thinking=…,answer=…,reference=…,id=…"
    )
    split: str = setting("train", "of a Hugging Face data set")
    limit: int = setting(0, "only the first rows; 0: all", least=0)

    min_parallelism: float = setting(
        1.05, "degree of parallelism below which an example is written as a sequential one", least=1
    )
    max_edit: float = setting(
        0.2, "most normalised edit distance of a rewritten path", least=0, most=1
    )
    max_paths: int = setting(16, "most paths of a block", least=2)
    max_depth: int = setting(4, "deepest nesting of blocks", least=1)
    strict: bool = setting(False, "an example with a remark fails")
    tokenizer: str = setting(
        "", "a transformers tokenizer's directory to count with; empty: words, digits and signs"
    )
    plots: bool = setting(True, "draw the data card's plots")

    only: int = setting(0, "ask this stage anew (1 to 5) and no other; 0: all", least=0, most=5)
    retry_failed: bool = setting(False, "begin examples that failed once more")
    dry_run: bool = setting(False, "say how many calls and tokens it would take, and make none")

    def __post_init__(self) -> None:
        check_ranges(self, CuratorError)
        if self.max_cost and not (self.price_in or self.price_out):
            raise CuratorError("max_cost: needs price_in or price_out")
        check_address("base_url", self.base_url, CuratorError)
        stage_settings(self)
        column_map(self)

    @property
    def api_key(self) -> str:
        """What is sent as the key; some text where there is none.

        Raises:
            CuratorError: it cannot be a key; the message does not hold it.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise CuratorError(f"api_key_env: what {self.api_key_env} holds cannot be a key")
        return key or "none"

    @property
    def rules(self) -> Rules:
        return Rules(self.max_edit, Limits(self.max_paths, self.max_depth))


@dataclass(frozen=True, slots=True)
class StageSettings:
    """Who is asked at one stage, and how."""

    model: str
    temperature: float
    top_p: float
    max_answer_tokens: int
    extra_body: str
    price_in: float
    price_out: float


def stage_settings(config: RunConfig) -> dict[str, StageSettings]:
    """The settings of each stage by its name.

    Raises:
        CuratorError: `stage` names no stage, no setting of one, or a value out of range.
    """
    names = [spec.name for spec in dataclasses.fields(StageSettings)]
    common = {name: getattr(config, name) for name in names}
    found = {name: StageSettings(**common) for name in STAGE_NAMES}
    for text in config.stage:
        stage, *changes = text.split() or [""]
        if stage not in found:
            raise CuratorError(f"stage: {stage!r} is not one of {', '.join(STAGE_NAMES)}")
        for change in changes:
            name, equals, value = change.partition("=")
            if not equals or name not in names:
                raise CuratorError(
                    f"stage: {change!r} is not one of {', '.join(f'{n}=…' for n in names)}"
                )
            spec = next(spec for spec in dataclasses.fields(RunConfig) if spec.name == name)
            said = f"stage {stage} {name}"
            changed = convert(said, value, get_type_hints(RunConfig)[name], CuratorError)
            if wrong := out_of_range(said, changed, spec.metadata):
                raise CuratorError(wrong)
            found[stage] = dataclasses.replace(found[stage], **{name: changed})
    for stage, settings in found.items():
        _check_extra_body(settings.extra_body, stage)
    return found


def _check_extra_body(text: str, stage: str) -> None:
    said = f"extra_body: {text!r}, for {stage},"
    try:
        fields = json.loads(text or "{}")
        json.dumps(fields, allow_nan=False)  # which no request can hold
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise CuratorError(f"{said} is no JSON object")
    if taken := sorted(OWN_FIELDS & set(fields)):
        raise CuratorError(f"{said} holds {', '.join(taken)}, which the curator sends or needs so")


def column_map(config: RunConfig) -> dict[str, str]:
    """Our field → the source's column.

    Raises:
        CuratorError: `columns` does not map fields that there are.
    """
    fields = ("question", "thinking", "answer", "reference", "id")
    columns = dict(PRESETS[config.preset])
    for pair in config.columns:
        name, equals, column = pair.partition("=")
        if not equals or not column or name not in fields:
            raise CuratorError(
                f"columns: {pair!r} is not one of {', '.join(f'{f}=…' for f in fields)}"
            )
        columns[name] = column
    if columns["question"] == columns["thinking"]:
        raise CuratorError(
            f"columns: question and thinking are both {columns['question']!r}; give two columns"
        )
    return columns


def make_config(flags: Mapping[str, Any]) -> RunConfig:
    """A config from a command line's text.

    Raises:
        CuratorError
    """
    for name, value in flags.items():
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            raise CuratorError(f"{name}: {value!r} is not UTF-8") from error
    return from_flags(RunConfig, flags, CuratorError, lists=("columns",))
