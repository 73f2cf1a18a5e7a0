"""Tokens out, tokens in: a training row made of an answer has the same log probabilities."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import torch

from asking import chat_ids, paths_of
from models import problems
from server import Server
from sglang_multiverse.structure import TagTable
from sglang_multiverse.training.collator import Collator
from sglang_multiverse.training.encode import IGNORE, Example

pytestmark = pytest.mark.server()


@pytest.mark.parametrize("kind", ["flat", "nested", "rounds"])
def test_a_training_row_made_of_them_has_the_same_log_probabilities(
    server: Server, kind: Any, tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    prompt = chat_ids(problems.generate(3, "held-out", kind), tiny_tokenizer)
    answer = server.generate(
        prompt, return_logprob=True, multiverse={"return_sequences": True, "guard": False}
    )
    found = answer["meta_info"]["multiverse"]["sequences"]
    assert answer["meta_info"]["multiverse"]["branches"] == len(found) - 1 > 1
    ids: dict[int, int] = {}
    positions: dict[int, int] = {}
    logprobs: dict[int, float | None] = {}
    names: dict[int, str] = {}
    for one in found:
        places = [i for lo, hi in one["spans"] for i in range(lo, hi)]
        for name, values in (("ids", ids), ("positions", positions), ("logprobs", logprobs)):
            assert not values.keys() & set(places)
            values.update(zip(places, one[name], strict=True))
        names.update(dict.fromkeys(places, one["path"]))
        assert one["parent"] == (one["path"].rpartition(".")[0] if one["path"] else None)
    row = [ids[i] for i in range(len(ids))]
    assert row == answer["output_ids"]
    assert [names[i] for i in range(len(row))] == paths_of(prompt, row, tiny_tags)

    whole = [*prompt, *row]
    chosen = [i for i in range(len(row)) if logprobs[i] is not None]
    labels = [IGNORE] * len(whole)
    for i in chosen:
        labels[len(prompt) + i] = row[i]
    batch = Collator(tiny_tags, tiny_tokenizer.pad_token_id)([Example(whole, labels)])
    assert batch["position_ids"][0, len(prompt) :].tolist() == [
        positions[i] for i in range(len(row))
    ]
    labels_row = batch.pop("labels")  # type: ignore[misc]
    with torch.no_grad():
        scores = tiny_model(**batch).logits[0].float().log_softmax(-1)
    # The first chosen token of a branch is read off its header, not off its sibling's end.
    at = [len(prompt) + i for i in chosen]
    assert [int(labels_row[0, place]) for place in at] == [row[i] for i in chosen]
    read = torch.tensor([scores[place - 1, row[i]] for place, i in zip(at, chosen, strict=True)])
    given = torch.tensor([logprobs[i] for i in chosen])
    assert (read - given).abs().max() < 1e-3


def test_they_need_log_probabilities(server: Server, tiny_tokenizer: Any) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        server.generate("a", multiverse={"return_sequences": True})
    assert refused.value.response.status_code == 400
    assert "multiverse.return_sequences" in refused.value.response.text
