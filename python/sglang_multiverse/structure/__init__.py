"""The Multiverse language: tags, reading, layout, guard, traces.

This room imports neither torch nor sglang.
"""

from .automaton import Automaton, Frame, Interval, Phase
from .dialect import MULTIVERSE, NPR, THREADWEAVER, Dialect, Role, TagPair, outline_label
from .escape import WORD_JOINER, break_tags, tag_pattern
from .guard import STATES, Allowed, Limits, allowed, allowed_in, forbidden_ids, guard_state
from .layout import Layout, layout
from .sequences import PathTokens, sequences
from .tags import MissingTagsError, TagTable, Tokenizer, add_tags, resolve_tags
from .trace import Block, Branch, Statistics, Trace, parse, walk

__all__ = [
    "MULTIVERSE",
    "NPR",
    "STATES",
    "THREADWEAVER",
    "WORD_JOINER",
    "Allowed",
    "Automaton",
    "Block",
    "Branch",
    "Dialect",
    "Frame",
    "Interval",
    "Layout",
    "Limits",
    "MissingTagsError",
    "PathTokens",
    "Phase",
    "Role",
    "Statistics",
    "TagPair",
    "TagTable",
    "Tokenizer",
    "Trace",
    "add_tags",
    "allowed",
    "allowed_in",
    "break_tags",
    "forbidden_ids",
    "guard_state",
    "layout",
    "outline_label",
    "parse",
    "resolve_tags",
    "sequences",
    "tag_pattern",
    "walk",
]
