"""`python -m sglang_multiverse.demo`: serve a small model, ask it, watch its branches grow."""
