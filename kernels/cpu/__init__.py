"""Attention and dense decoders on CPUs, compiled; neither engine nor SGLang.

`library` loads what `build` compiled from `src/`, `attention` and `decoder` call it.
"""
