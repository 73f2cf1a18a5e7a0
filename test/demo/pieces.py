"""A made-up stream: two branches, of which the second has two of its own, then a second block."""

from __future__ import annotations

PIECES = (
    ("", "Let's think in parallel.\n<Parallel>\n<Goal>\n"),
    ("", "<Outline>\n1: first\n</Outline>\n<Outline>\n2: second\n</Outline>\n</Goal>"),
    ("1", "\n<Path>\n1:"),
    ("2", "\n<Path>\n2:"),
    ("1", " one"),
    ("2", " two\n<Parallel>\n<Goal>\n<Outline>\n2.1: a\n</Outline>"),
    ("1", " done\n</Path>"),
    ("2", "\n<Outline>\n2.2: b\n</Outline>\n</Goal>"),
    ("2.2", "\n<Path>\n2.2:"),
    ("2.1", "\n<Path>\n2.1:"),
    ("2.2", " bee\n</Path>"),
    ("2.1", " ay\n</Path>"),
    ("2", "\n<Conclusion>\nab\n</Conclusion>\n</Parallel>\n</Path>"),
    ("", "\n<Conclusion>\nboth\n</Conclusion>\n</Parallel>\nAgain.\n<Parallel>\n<Goal>\n"),
    ("", "<Outline>\n1: third\n</Outline>\n</Goal>"),
    ("1", "\n<Path>\n1: three\n</Path>"),
    ("", "\n<Conclusion>\nall\n</Conclusion>\n</Parallel>\nAnswer: 3"),
)

LINEAR = """Let's think in parallel.
<Parallel>
<Goal>
<Outline>
1: first
</Outline>
<Outline>
2: second
</Outline>
</Goal>
<Path>
1: one done
</Path>
<Path>
2: two
<Parallel>
<Goal>
<Outline>
2.1: a
</Outline>
<Outline>
2.2: b
</Outline>
</Goal>
<Path>
2.1: ay
</Path>
<Path>
2.2: bee
</Path>
<Conclusion>
ab
</Conclusion>
</Parallel>
</Path>
<Conclusion>
both
</Conclusion>
</Parallel>
Again.
<Parallel>
<Goal>
<Outline>
1: third
</Outline>
</Goal>
<Path>
1: three
</Path>
<Conclusion>
all
</Conclusion>
</Parallel>
Answer: 3"""

SUMMARY = {
    "tokens": 100,
    "critical_path_tokens": 50,
    "degree_of_parallelism": 2.0,
    "blocks": 3,
    "branches": 5,
    "max_concurrent_branches": 2,
}
