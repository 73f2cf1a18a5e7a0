"""A seed of its own for each of the `n` answers to one prompt.

SGLang tokenises the prompt once and sends the result `n` times, seed included:
with our seeded branches every answer would be the same. The first answer
keeps the user's seed, so that `n=1` gives the first of them.
"""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

from .aborts import abort_late
from .admission import FIELD
from .support import support_of

if TYPE_CHECKING:
    from collections.abc import Callable

# Counts the copies sent so far. It stands among the request's options only
# inside this process, and is taken out before they are sent.
_COUNTER = "sample"


def count_samples(params: Any) -> Any:
    """Sampling parameters that number the copies made of them, where that matters."""
    if isinstance(params, list):
        return [count_samples(one) for one in params]
    if not isinstance(params, dict) or params.get("sampling_seed") is None:
        return params
    n = params.get("n")
    if not isinstance(n, int) or n < 2:
        return params
    custom = params.get("custom_params") or {}
    if not isinstance(custom, dict):
        return params  # SGLang refuses it with its own words
    options = {**custom.get(FIELD, {}), _COUNTER: 0}
    return {**params, "custom_params": {**custom, FIELD: options}}


def sample_seed(seed: int, sample: int) -> int:
    """The seed of one of several answers; any 63 bits, but the same in every run."""
    if sample == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


async def send_one_request(original: Callable[..., Any], manager: Any, tokenized: Any) -> None:
    """Hook: give this copy its seed.

    The copies share one options object, and SGLang sends those of one prompt
    one after another. A copy that generates nothing only warms the cache.
    """
    if support_of(manager).dialect is not None:
        _seed_copy(tokenized)
    await original(manager, tokenized)
    abort_late(manager, tokenized.rid)


def _seed_copy(tokenized: Any) -> None:
    params = tokenized.sampling_params
    custom = params.custom_params
    options = custom.get(FIELD) if isinstance(custom, dict) else None
    if options is None or _COUNTER not in options:
        return
    params = copy.copy(params)
    sample = options[_COUNTER]
    if params.max_new_tokens != 0:
        options[_COUNTER] = (sample + 1) % params.n
        params.sampling_seed = sample_seed(params.sampling_seed, sample)
    kept = {name: value for name, value in options.items() if name != _COUNTER}
    params.custom_params = {**custom, FIELD: kept}
    tokenized.sampling_params = params
