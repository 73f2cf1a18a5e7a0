"""The shift of position ids, on batches that are made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.no_sync import on_device
from sglang_multiverse.engine import positions
from sglang_multiverse.engine.positions import shift_positions
from sglang_multiverse.engine.req import MultiverseReq


def row(offset: int | None) -> Any:
    """A row with an offset; `None` is one of an engine without families."""
    if offset is None:
        return SimpleNamespace()
    req = MultiverseReq.__new__(MultiverseReq)
    req.position_offset, req.layout = offset, None
    return req


def shifted(
    offsets: list[int | None],
    found: torch.Tensor,
    extend_lens: list[int] | None = None,
    mrope: bool = False,
) -> Any:
    """What the hook makes of a `ForwardBatch` with the positions `found`."""
    batch = SimpleNamespace(
        reqs=[row(offset) for offset in offsets],
        extend_lens=extend_lens,
        prefix_lens=[0] * len(offsets),
    )
    result = SimpleNamespace(
        positions=found,
        mrope_positions=found.unsqueeze(0).repeat(3, 1) if mrope else None,
        forward_mode=SimpleNamespace(is_decode=lambda: extend_lens is None),
    )
    shift_positions(result, object, batch, None)
    return result


def test_decoding_has_one_position_a_row() -> None:
    result = shifted([0, -5, None, -2], torch.tensor([7, 9, 11, 30]))
    assert result.positions.tolist() == [7, 4, 11, 28]
    assert result.mrope_positions is None


def test_extending_has_one_a_token() -> None:
    result = shifted([-5, 0, -2], torch.tensor([8, 9, 0, 1, 2, 40]), extend_lens=[2, 3, 1])
    assert result.positions.tolist() == [3, 4, 0, 1, 2, 38]


@pytest.mark.parametrize("extend_lens", [None, [1, 1, 1]])
def test_all_three_axes_of_mrope_move(extend_lens: list[int] | None) -> None:
    result = shifted([0, -5, -2], torch.tensor([7, 9, 30]), extend_lens, mrope=True)
    assert result.mrope_positions.tolist() == [[7, 4, 28]] * 3
    assert result.positions.tolist() == [7, 4, 28]


@pytest.mark.parametrize("mrope", [False, True])
def test_rows_that_never_joined_cost_no_tensor(
    monkeypatch: pytest.MonkeyPatch, mrope: bool
) -> None:
    monkeypatch.setattr(positions, "to_device", lambda *_: pytest.fail("made a tensor"))
    found = torch.tensor([7, 9, 11])
    assert shifted([0, None, 0], found, mrope=mrope).positions is found


def test_the_old_tensor_is_left_alone() -> None:
    found = torch.tensor([7])
    shifted([-5], found)
    assert found.tolist() == [7]


@pytest.mark.parametrize("extend_lens", [None, [2, 4]])
def test_the_host_never_waits(extend_lens: list[int] | None) -> None:
    tokens = sum(extend_lens or [1, 1])
    result = shifted([-5, 0], on_device(tokens), extend_lens, mrope=True)
    assert result.positions.is_meta and result.positions.shape == (tokens,)
    assert result.mrope_positions.shape == (3, tokens)


def test_a_value_on_the_device_cannot_be_read() -> None:
    """What `test_the_host_never_waits` relies on."""
    for read in (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.cpu, bool):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(on_device(1))


def test_rows_of_beams_behind_the_requests_keep_theirs() -> None:
    result = shifted([0, -5, None], torch.tensor([7, 9, 11, 12, 12]))
    assert result.positions.tolist() == [7, 4, 11, 12, 12]
