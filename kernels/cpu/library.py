"""The compiled library and the structs of its interface (`src/api.h`)."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_int64, c_void_p
from typing import Any

import torch

from .build import HERE, LIBRARY

ABI = 2
TILE = 64  # keys that are read at a time
QUERIES = 48  # query heads of a task, about
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
MOST_THREADS = 256


class LibraryError(RuntimeError):
    """The compiled kernels cannot be used here; the message says why."""


class Cache(Structure):
    _fields_ = (
        ("k", c_void_p),
        ("v", c_void_p),
        ("k_slot_stride", c_int64),
        ("k_head_stride", c_int64),
        ("v_slot_stride", c_int64),
        ("v_head_stride", c_int64),
    )


class Heads(Structure):
    _fields_ = (
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("dim", c_int32),
        ("dim_v", c_int32),
        ("kind", c_int32),
        ("scale", c_float),
        ("logit_cap", c_float),
    )


class Rows(Structure):
    _fields_ = (
        ("tokens", c_int32),
        ("sequences", c_int32),
        ("q_begin", c_void_p),
        ("lens", c_void_p),
        ("table", c_void_p),
        ("begin", c_void_p),
        ("hidden", c_void_p),
        ("depth", c_int32),
        ("groups", c_int32),
        ("group", c_void_p),
        ("members", c_void_p),
        ("own", c_void_p),
    )


class Attention(Structure):
    _fields_ = (
        ("heads", Heads),
        ("cache", Cache),
        ("rows", Rows),
        ("q", c_void_p),
        ("out", c_void_p),
        ("q_stride", c_int64),
        ("out_stride", c_int64),
    )


class Linear(Structure):
    _fields_ = (
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("n", c_int32),
        ("k", c_int32),
        ("kind", c_int32),
    )


class Layer(Structure):
    _fields_ = (
        ("qkv", Linear),
        ("out", Linear),
        ("gate_up", Linear),
        ("down", Linear),
        ("attention_norm", c_void_p),
        ("mlp_norm", c_void_p),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("cache", Cache),
    )


class Model(Structure):
    _fields_ = (
        ("layers", c_int32),
        ("hidden", c_int32),
        ("intermediate", c_int32),
        ("vocabulary", c_int32),
        ("rotary_dim", c_int32),
        ("positions", c_int32),
        ("heads", Heads),
        ("eps", c_float),
        ("embedding_kind", c_int32),
        ("embedding", c_void_p),
        ("final_norm", c_void_p),
        ("rotary", c_void_p),
        ("layer", POINTER(Layer)),
    )


class Step(Structure):
    _fields_ = (
        ("rows", Rows),
        ("ids", c_void_p),
        ("positions", c_void_p),
        ("slots", c_void_p),
        ("out", c_void_p),
    )


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "mv_abi": (c_int32, ()),
    "mv_isa": (c_char_p, ()),
    "mv_use_isa": (c_int32, (c_char_p,)),
    "mv_set_threads": (None, (c_int32,)),
    "mv_attend": (None, (POINTER(Attention),)),
    "mv_packed_bytes": (c_int64, (c_int32, c_int32, c_int32)),
    "mv_pack": (None, (c_void_p, c_int32, c_int32, c_int32, c_int32, c_void_p, c_void_p)),
    "mv_linear": (None, (POINTER(Linear), c_void_p, c_int32, c_void_p)),
    "mv_forward": (c_int32, (POINTER(Model), POINTER(Step))),
}


@functools.cache
def library() -> Any:
    """The library, with one thread for each that torch has.

    Raises:
        LibraryError: it was not compiled, or from other sources than this module's.
    """
    path = HERE / LIBRARY
    if not path.exists():
        raise LibraryError(
            "the CPU kernels were not compiled when this package was built: install a C++ "
            "compiler and build it again (in a checkout: `make env`)"
        )
    try:
        loaded = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise LibraryError(f"{path}: {error}") from error
    if loaded.mv_abi() != ABI:
        raise LibraryError(f"{path}: has interface {loaded.mv_abi()}, not {ABI}; build it again")
    loaded.mv_set_threads(min(torch.get_num_threads(), MOST_THREADS))
    return loaded


def available() -> str | None:
    """Why the kernels cannot be used; `None` if they can."""
    try:
        library()
    except LibraryError as error:
        return str(error)
    return None


def set_threads(count: int) -> None:
    """How many threads compute, the caller's included.

    Raises:
        LibraryError: fewer than one, or more than allowed.
    """
    if not 1 <= count <= MOST_THREADS:
        raise LibraryError(f"threads: {count}; allowed are 1 to {MOST_THREADS}")
    library().mv_set_threads(count)


def instruction_set() -> str:
    """The one in use: `baseline`, `avx2` or `avx512`."""
    return str(library().mv_isa().decode())


def use_instruction_set(name: str) -> None:
    """For tests and measurements: another one that this processor has. Packed weights are its own.

    Raises:
        LibraryError: this processor does not have it.
    """
    if not library().mv_use_isa(name.encode()):
        raise LibraryError(f"instruction set: {name!r} is not one of this processor's")
