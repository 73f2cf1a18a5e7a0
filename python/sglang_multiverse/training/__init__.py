"""From conversations to batches under Multiverse attention.

`encode` needs a tokenizer only; `collator` needs torch.
"""
