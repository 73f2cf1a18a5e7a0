"""What operators do to a busy server: pauses, new weights, and now and then the end of all."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import httpx
from load import Load

# Seconds between two acts, and of a pause.
BETWEEN, PAUSE = (2, 8), (0.05, 1.5)
ACTS = {"in_place": 0.3, "retract": 0.3, "both": 0.1, "update": 0.25, "abort_all": 0.05}


class Operator:
    """Acts on the server of `load` at random times. `errors` must stay empty.

    Attributes:
        pauses: by the mode, or the modes one after the other.
        updates: of the weights, each from the path that they came from.
    """

    def __init__(self, load: Load, model_path: Path, seed: int) -> None:
        self.load, self.model_path = load, model_path
        self.rng = random.Random(seed)
        self.http = httpx.AsyncClient(
            base_url=load.http.base_url,
            timeout=120,
            trust_env=False,
            # The server closes a connection that idles, perhaps just when it is used again.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self.pauses: Counter[str] = Counter()
        self.updates = 0
        self.errors: list[str] = []

    async def run(self, seconds: float) -> None:
        """Act for so long; nothing is paused any more when this returns."""
        end = time.monotonic() + seconds
        async with self.http:
            while True:
                await asyncio.sleep(self.rng.uniform(*BETWEEN))
                if time.monotonic() > end or len(self.errors) >= 20:
                    return
                (act,) = self.rng.choices(list(ACTS), list(ACTS.values()))
                try:
                    await self.act(act)
                except (httpx.HTTPError, ValueError) as error:
                    self.errors.append(f"{act}: {error!r:.300}")

    async def act(self, act: str) -> None:
        if act == "abort_all":
            await self.load.abort_all()
            return
        modes = {"both": self.rng.sample(["in_place", "retract"], 2), "update": ["retract"]}
        try:
            for mode in modes.get(act, [act]):
                await self._post("/pause_generation", mode=mode)
                await asyncio.sleep(self.rng.uniform(*PAUSE))
            if act == "update":
                await self._update()
        finally:
            await self._post("/continue_generation")
        self.pauses[" then ".join(modes.get(act, [act]))] += 1

    async def _update(self) -> None:
        """The same weights again, so that answers stay comparable; the KV of the old ones goes."""
        answer = await self._post("/update_weights_from_disk", model_path=str(self.model_path))
        if not answer["success"]:
            raise ValueError(answer["message"])
        self.updates += 1

    async def _post(self, path: str, **body: str) -> dict[str, object]:
        answer = await self.http.post(path, json=body)
        if not answer.is_success:
            raise ValueError(f"{path}: {answer.status_code} {answer.text:.200}")
        found: dict[str, object] = answer.json()
        return found
