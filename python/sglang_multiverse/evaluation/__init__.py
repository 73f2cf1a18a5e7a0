"""Accuracy, parallelism and latency of a live endpoint, and comparisons between two of them.

`python -m sglang_multiverse.evaluation` asks any OpenAI-compatible endpoint; third parties grade.
"""
