"""Training a model to write Multiverse text: conversations, batches, the run itself.

`python -m sglang_multiverse.training` runs it. `encode` and `config` need no torch.
"""
