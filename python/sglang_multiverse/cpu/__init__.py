"""What the processor can do."""

from __future__ import annotations

import torch

# Capabilities under which a bf16 matrix product is not emulated. AVX-512
# without avx512_bf16 is not among them: it is slower than fp32 there.
_NATIVE_BF16 = ("amx_bf16", "avx512_bf16", "bf16")


def has_native_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _NATIVE_BF16)
