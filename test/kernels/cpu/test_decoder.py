"""The compiled decoder against plain torch, in every weight type, and against itself."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from sglang_multiverse.kernels.cpu.decoder import Decoder, DecoderLayer
from sglang_multiverse.kernels.cpu.linear import PackedLinear, is_exact_in_bf16
from sglang_multiverse.kernels.cpu.rows import Rows
from sglang_multiverse.kernels.inputs import KernelInputError
from sglang_multiverse.kernels.reference import extend_attention_reference

KINDS = [torch.float32, torch.bfloat16, torch.int8]
SLOTS, EPS = 400, 1e-5


def rounded(weight: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """What the packed weights stand for."""
    if kind != torch.int8:
        return weight.to(kind).float()
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round() * scale


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("n", "k"), [(1, 16), (31, 48), (96, 64), (200, 33)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(kind: torch.dtype, n: int, k: int, bias: bool, threads: int) -> None:
    generator = torch.Generator().manual_seed(n)
    weight = torch.randn(n, k, generator=generator)
    added = torch.randn(n, generator=generator) if bias else None
    packed = PackedLinear.pack(weight, kind, bias=added)
    for rows in (1, 2, 7, 13, 48, 61, 100):
        x = torch.randn(rows, k, generator=generator)
        want = x.double() @ rounded(weight, kind).double().T + (0 if added is None else added)
        assert (packed(x) - want).abs().max() < 1e-4
        alone = torch.cat([packed(x[i : i + 1]) for i in range(rows)])
        assert torch.equal(packed(x), alone)


def test_exact_in_bf16() -> None:
    weight = torch.randn(5, 7)
    assert not is_exact_in_bf16(weight)
    assert is_exact_in_bf16(weight.bfloat16().float())


@pytest.mark.parametrize(
    ("weight", "kind", "message"),
    [
        (torch.zeros(4, 4), torch.float16, "kind: torch.float16; allowed are torch.float32"),
        (torch.zeros(0, 4), torch.float32, r"weight: \(0, 4\)"),
    ],
)
def test_what_cannot_be_packed(weight: torch.Tensor, kind: torch.dtype, message: str) -> None:
    with pytest.raises(KernelInputError, match=message):
        PackedLinear.pack(weight, kind)


@dataclass
class Plain:
    """A decoder in torch, and the same one compiled; KV of `dtype`."""

    kind: torch.dtype
    dtype: torch.dtype
    bias: bool
    qk_norm: bool
    heads: int = 6
    kv: int = 2
    d: int = 32
    hidden: int = 80
    inner: int = 112
    count: int = 2

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(1)

        def draw(*shape: int, spread: float = 0.15) -> torch.Tensor:
            return torch.randn(*shape, generator=generator) * spread

        width = (self.heads + 2 * self.kv) * self.d
        self.weights = [
            {
                "qkv": draw(width, self.hidden),
                "out": draw(self.hidden, self.heads * self.d),
                "gate_up": draw(2 * self.inner, self.hidden),
                "down": draw(self.hidden, self.inner),
                "attention_norm": 1 + draw(self.hidden),
                "mlp_norm": 1 + draw(self.hidden),
                "q_norm": 1 + draw(self.d),
                "k_norm": 1 + draw(self.d),
                "bias": draw(width),
            }
            for _ in range(self.count)
        ]
        self.embedding = draw(50, self.hidden, spread=1.0)
        self.final_norm = 1 + draw(self.hidden)
        angles = torch.arange(64)[:, None] / 10 ** (torch.arange(self.d // 2) / 8)
        self.rotary = torch.cat([angles.cos(), angles.sin()], 1).contiguous()
        self.scale = self.d**-0.5

    def buffers(self) -> list[torch.Tensor]:
        return [torch.zeros(SLOTS, self.kv, self.d, dtype=self.dtype) for _ in range(self.count)]

    def compiled(self) -> tuple[Decoder, list[torch.Tensor], list[torch.Tensor]]:
        ks, vs = self.buffers(), self.buffers()
        layers = [
            DecoderLayer(
                PackedLinear.pack(w["qkv"], self.kind, bias=w["bias"] if self.bias else None),
                PackedLinear.pack(w["out"], self.kind),
                PackedLinear.pack(w["gate_up"], self.kind, halves=True),
                PackedLinear.pack(w["down"], self.kind),
                w["attention_norm"],
                w["mlp_norm"],
                w["q_norm"] if self.qk_norm else None,
                w["k_norm"] if self.qk_norm else None,
                k,
                v,
            )
            for w, k, v in zip(self.weights, ks, vs, strict=True)
        ]
        decoder = Decoder(
            layers,
            heads=self.heads,
            embedding=self.embedding,
            final_norm=self.final_norm,
            rotary=self.rotary,
            eps=EPS,
            sm_scale=self.scale,
        )
        return decoder, ks, vs

    def __call__(self, ids, positions, slots, qo, kv, indices, hidden):  # type: ignore[no-untyped-def]
        """In fp64 but for the cache; returns hidden states and the buffers of the last layer."""
        x = self.embedding[ids].double()
        for w in self.weights:
            qkv = self.norm(x, w["attention_norm"]) @ rounded(w["qkv"], self.kind).double().T
            if self.bias:
                qkv = qkv + w["bias"]
            qkv = qkv.view(len(ids), -1, self.d)
            q, k, v = qkv.split([self.heads, self.kv, self.kv], 1)
            if self.qk_norm:
                q, k = self.norm(q, w["q_norm"]), self.norm(k, w["k_norm"])
            q, k = self.turn(q, positions), self.turn(k, positions)
            ks, vs = self.buffers()[0].double(), self.buffers()[0].double()
            ks[slots], vs[slots] = k.to(self.dtype).double(), v.to(self.dtype).double()
            attended = extend_attention_reference(q, ks, vs, qo, kv, indices, hidden, 0)
            x = x + attended.flatten(1) @ rounded(w["out"], self.kind).double().T
            gate, up = (
                self.norm(x, w["mlp_norm"]) @ rounded(w["gate_up"], self.kind).double().T
            ).chunk(2, -1)
            inner = torch.nn.functional.silu(gate) * up
            x = x + inner @ rounded(w["down"], self.kind).double().T
        return self.norm(x, self.final_norm), ks, vs

    def norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight

    def turn(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        cos, sin = self.rotary[positions].double()[:, None].chunk(2, -1)
        low, high = x.chunk(2, -1)
        return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


def step(lengths: list[int]) -> dict[str, torch.Tensor]:
    """Prompts of these lengths, nothing cached, a sibling hidden from the last tokens of each."""
    generator = torch.Generator().manual_seed(5)
    total = sum(lengths)
    hidden = torch.zeros(total, 1, 2, dtype=torch.int32)
    positions = torch.cat([torch.arange(n) for n in lengths])
    for start, n in zip(torch.tensor([0, *lengths]).cumsum(0).tolist(), lengths, strict=False):
        third = n // 3
        hidden[start + 2 * third : start + n] = torch.tensor([third, 2 * third])
        positions[start + 2 * third : start + n] -= third
    indptr = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return {
        "ids": torch.randint(0, 50, (total,), generator=generator),
        "positions": positions,
        "slots": torch.randperm(SLOTS, generator=generator)[:total],
        "qo": indptr,
        "kv": indptr,
        "hidden": hidden,
    }


MODELS = [
    (torch.float32, torch.float32, False, False),
    (torch.float32, torch.bfloat16, True, False),
    (torch.bfloat16, torch.float32, False, True),
    (torch.int8, torch.float32, True, True),
]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_decoder(model: tuple[torch.dtype, torch.dtype, bool, bool], threads: int) -> None:
    plain = Plain(*model)
    case = step([40, 1, 63])
    want, k, v = plain(**case, indices=case["slots"])
    decoder, ks, vs = plain.compiled()
    rows = Rows.of_indices(104, case["qo"], case["kv"], case["slots"], case["hidden"])
    got = decoder(case["ids"], case["positions"], case["slots"], rows)
    tolerance = 1e-4 if plain.dtype == torch.float32 else 3e-2
    assert (got - want).abs().max() < tolerance
    assert (ks[-1].double() - k).abs().max() < tolerance
    assert (vs[-1].double() - v).abs().max() < tolerance


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_same_bits_token_by_token(model: tuple[torch.dtype, torch.dtype, bool, bool]) -> None:
    plain = Plain(*model)
    case = step([40])
    decoder, ks, _ = plain.compiled()
    rows = Rows.of_indices(40, case["qo"], case["kv"], case["slots"], case["hidden"])
    whole = decoder(case["ids"], case["positions"], case["slots"], rows)
    again, other, _ = plain.compiled()
    for i in range(40):
        one = slice(i, i + 1)
        rows = Rows.of_indices(
            1,
            torch.tensor([0, 1]),
            torch.tensor([0, i + 1]),
            case["slots"][: i + 1],
            case["hidden"][one],
        )
        got = again(case["ids"][one], case["positions"][one], case["slots"][one], rows)
        assert torch.equal(got[0], whole[i])
    assert all(torch.equal(a, b) for a, b in zip(ks, other, strict=True))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("ids", 50, "vocabulary"), ("ids", -1, "vocabulary"), ("positions", 64, "rotary table"),
     ("slots", -1, "negative")],
)  # fmt: skip
def test_what_is_out_of_range(name: str, value: int, message: str) -> None:
    case = step([5])
    case[name] = case[name].clone()
    case[name][3] = value
    decoder, _, _ = Plain(*MODELS[0]).compiled()
    rows = Rows.of_indices(5, case["qo"], case["kv"], torch.arange(5))
    with pytest.raises(KernelInputError, match=f"{name}: .*{message}"):
        decoder(case["ids"], case["positions"], case["slots"], rows)
