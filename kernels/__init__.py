"""Attention kernels that know Multiverse visibility; they import neither engine nor SGLang."""
