"""Seeds of the `n` answers to one prompt."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
from sglang.srt.sampling.sampling_params import SamplingParams

from sglang_multiverse.engine.http.samples import count_samples, sample_seed, send_one_request
from sglang_multiverse.engine.http.support import Support
from sglang_multiverse.engine.options import MultiverseArgs
from sglang_multiverse.structure import MULTIVERSE


def manager(dialect=MULTIVERSE):
    return SimpleNamespace(multiverse_support=Support(MultiverseArgs(), dialect))


async def sent(params, copies, dialect=MULTIVERSE):
    """What reaches the scheduler when SGLang sends `copies` of one tokenised request."""
    seen = []

    async def original(_, tokenized):
        seen.append(tokenized.sampling_params)

    tokenized = SimpleNamespace(rid="r", sampling_params=SamplingParams(**params))
    for number in range(copies):
        one = copy.copy(tokenized)
        if number == 0:  # the copy that only fills the cache
            one.sampling_params = copy.copy(one.sampling_params)
            one.sampling_params.max_new_tokens = 0
        await send_one_request(original, manager(dialect), one)
    return seen


async def test_answers_get_different_seeds_and_the_first_keeps_the_users():
    params = count_samples({"n": 3, "sampling_seed": 7, "custom_params": {"mine": 1}})
    warm, *answers = await sent(params, 4)
    seeds = [one.sampling_seed for one in answers]
    assert seeds[0] == warm.sampling_seed == 7
    assert len(set(seeds)) == 3
    assert all(one.custom_params == {"mine": 1, "multiverse": {}} for one in [warm, *answers])


async def test_a_second_prompt_of_the_batch_starts_again():
    params = count_samples({"n": 2, "sampling_seed": 7})
    _, *answers = await sent(params, 5)
    first, second = answers[:2], answers[2:]
    assert [one.sampling_seed for one in first] == [one.sampling_seed for one in second]


async def test_options_are_kept():
    params = count_samples(
        {"n": 2, "sampling_seed": 7, "custom_params": {"multiverse": {"max_depth": 2}}}
    )
    for one in await sent(params, 3):
        assert one.custom_params == {"multiverse": {"max_depth": 2}}


@pytest.mark.parametrize(
    "params",
    [None, {}, {"n": 2}, {"n": 1, "sampling_seed": 1}, {"n": None, "sampling_seed": 1}, "nonsense"],
)
def test_nothing_is_counted_without_need(params):
    assert count_samples(params) is params


async def test_a_plain_model_is_left_alone():
    theirs = {"n": 2, "sampling_seed": 7, "custom_params": {"multiverse": {"sample": 5}}}
    for one in await sent(theirs, 3, dialect=None):
        assert one.custom_params == {"multiverse": {"sample": 5}}
        assert one.sampling_seed == 7


def test_seeds_fit_sglang_and_do_not_change_between_runs():
    assert sample_seed(5, 1) == 5364355210831787219
    assert all(0 <= sample_seed(-5, k) < 2**63 for k in range(1, 100))
    assert sample_seed(-5, 0) == -5
