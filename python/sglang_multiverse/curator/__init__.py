"""Sequential reasoning into Multiverse training data, with a language model's help.

`python -m sglang_multiverse.curator` runs it; docs/curator.md has the design. The model answers
with numbers of sentences and edges between steps; what becomes of them is computed here, so
that no sentence is lost and no group is formed against the graph.
"""
