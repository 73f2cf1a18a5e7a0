"""Attention kernels that know Multiverse visibility; they import neither engine nor SGLang.

`extend` is attention of many new tokens per sequence, some of them in branches;
`shared_prefix` is attention of one new token per sequence, where sequences share prefixes.
Both read KV through slot indices, as SGLang's pools keep it, and `reference` says in plain
torch what each must return. `grouping` decides, without torch, what is shared.
"""
