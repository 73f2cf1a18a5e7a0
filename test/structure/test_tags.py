"""Dialects as data, and their tags in a tokenizer."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sglang_multiverse.structure import (
    MULTIVERSE,
    NPR,
    THREADWEAVER,
    Dialect,
    MissingTagsError,
    Role,
    TagPair,
    TagTable,
    add_tags,
    outline_label,
    resolve_tags,
)

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

IN_ORDER = [
    "<Think>",
    "</Think>",
    "<Parallel>",
    "</Parallel>",
    "<Goal>",
    "</Goal>",
    "<Outline>",
    "</Outline>",
    "<Path>",
    "</Path>",
    "<Conclusion>",
    "</Conclusion>",
]


def byte_tokenizer() -> Any:
    """A `transformers` tokenizer of the 256 bytes; it has no unknown token."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, [])
    core = tokenizers.Tokenizer(model)
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core)


def word_tokenizer(words: list[str]) -> Any:
    """A tokenizer of whole words; all others become its unknown token."""
    vocabulary = {word: i for i, word in enumerate(["<unk>", *words])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


# --- resolution --------------------------------------------------------------------


def test_added_tags_come_in_order() -> None:
    tokenizer = byte_tokenizer()
    assert list(MULTIVERSE.tags) == IN_ORDER
    assert add_tags(tokenizer) == 12
    assert [tokenizer.convert_tokens_to_ids(tag) for tag in IN_ORDER] == list(range(256, 268))
    table = resolve_tags(tokenizer)
    assert table.dialect is MULTIVERSE
    assert table.id_of[Role.THINK_OPEN] == 256
    assert table.id_of[Role.GOAL_CLOSE] == 261
    assert table.role_of[267] is Role.CONCLUSION_CLOSE
    assert add_tags(tokenizer) == 0
    assert len(tokenizer) == 268


def test_only_missing_tags_are_added() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<Path>", tokenizers.AddedToken("<Think>", special=True)])
    assert add_tags(tokenizer) == 10
    assert tokenizer.convert_tokens_to_ids("<Path>") == 256
    assert tokenizer.convert_tokens_to_ids("<Think>") == 257
    left = [tag for tag in IN_ORDER if tag not in ("<Path>", "<Think>")]
    assert [tokenizer.convert_tokens_to_ids(tag) for tag in left] == list(range(258, 268))
    assert len(resolve_tags(tokenizer).id_of) == 12
    assert tokenizer.added_tokens_decoder[257].special  # as it was


def test_a_tag_known_but_never_written_needs_no_new_id() -> None:
    """Its word is in the vocabulary, but text is split before it could be found there."""
    tokenizer = word_tokenizer(["<", "Path", ">", "<Path>"])
    tokenizer.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Punctuation()
    with pytest.raises(MissingTagsError) as caught:
        resolve_tags(tokenizer)
    assert "<Path>" in caught.value.missing
    assert add_tags(tokenizer) == 11
    assert tokenizer.convert_tokens_to_ids("<Path>") == 4
    assert len(resolve_tags(tokenizer).id_of) == 12


def test_added_tags_split_text_and_survive_decoding() -> None:
    tokenizer = byte_tokenizer()
    add_tags(tokenizer)
    text = "a<Parallel>\n<Goal>b</Goal> <Path></Path>"
    ids = tokenizer.encode(text, add_special_tokens=False)
    table = resolve_tags(tokenizer)
    assert [table.role_of[token] for token in ids if token in table.role_of] == [
        Role.BLOCK_OPEN,
        Role.GOAL_OPEN,
        Role.GOAL_CLOSE,
        Role.BRANCH_OPEN,
        Role.BRANCH_CLOSE,
    ]
    assert len(ids) == 9
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert table.has_tags(ids)
    assert not table.has_tags(tokenizer.encode("a Path <path>", add_special_tokens=False))


@pytest.mark.parametrize("dialect", [MULTIVERSE, NPR, THREADWEAVER], ids=lambda d: d.name)
def test_every_dialect_resolves(dialect: Dialect) -> None:
    tokenizer = byte_tokenizer()
    assert add_tags(tokenizer, dialect) == len(dialect.tags)
    table = resolve_tags(tokenizer, dialect)
    assert list(table.role_of) == list(range(256, 256 + len(dialect.tags)))
    assert list(table.id_of) == list(dialect.roles.values())


def test_missing_tags_are_named() -> None:
    """All tags, since each is many tokens here."""
    with pytest.raises(MissingTagsError) as caught:
        resolve_tags(byte_tokenizer())
    assert caught.value.missing == tuple(IN_ORDER)
    assert caught.value.dialect is MULTIVERSE
    assert "'multiverse'" in str(caught.value)
    assert all(tag in str(caught.value) for tag in IN_ORDER)


def test_some_missing_tags_are_named() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([tag for tag in IN_ORDER if tag not in ("<Goal>", "</Path>")])
    with pytest.raises(MissingTagsError, match=r"<Goal> </Path>$") as caught:
        resolve_tags(tokenizer)
    assert caught.value.missing == ("<Goal>", "</Path>")
    with pytest.raises(MissingTagsError):
        resolve_tags(tokenizer, NPR)


def test_a_tag_that_encodes_as_several_tokens_is_missing() -> None:
    """In the vocabulary, but no merge leads there: the tokenizer never writes it."""

    class Splitting:
        def convert_tokens_to_ids(self, tokens: str) -> int | None:
            return IN_ORDER.index(tokens)

        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            assert add_special_tokens is False
            return [50, 51] if text == "</Goal>" else [IN_ORDER.index(text)]

    with pytest.raises(MissingTagsError) as caught:
        resolve_tags(Splitting())
    assert caught.value.missing == ("</Goal>",)


def test_the_unknown_token_is_not_a_tag() -> None:
    """Such a tokenizer gives one id for a tag it lacks, both ways."""
    assert len(resolve_tags(word_tokenizer(IN_ORDER)).id_of) == 12
    tokenizer = word_tokenizer([tag for tag in IN_ORDER if tag != "</Path>"])
    unknown = tokenizer.convert_tokens_to_ids("</Path>")
    assert unknown == tokenizer.unk_token_id
    assert tokenizer.encode("</Path>", add_special_tokens=False) == [unknown]
    with pytest.raises(MissingTagsError) as caught:
        resolve_tags(tokenizer)
    assert caught.value.missing == ("</Path>",)


def test_two_tags_cannot_share_an_id() -> None:
    ids = {tag: i for i, tag in enumerate(IN_ORDER)} | {"<Path>": 0}
    with pytest.raises(ValueError, match="share a token id"):
        TagTable.from_ids(MULTIVERSE, ids)


# --- dialects ------------------------------------------------------------------------


def test_headers() -> None:
    assert MULTIVERSE.branch_header("1.2") == "\n<Path>\n1.2:"
    assert MULTIVERSE.conclusion_header == "\n<Conclusion>\n"
    assert NPR.branch_header("1") == "\n<step>\n1:"
    assert NPR.conclusion_header == "\n<takeaway>\n"
    assert THREADWEAVER.branch_header("2") == "\n<Thread>\n2:"
    assert THREADWEAVER.conclusion_header == "\n"


def test_a_dialect_must_close_its_blocks() -> None:
    pairs = {name: TagPair(f"<{name}>", f"</{name}>") for name in ("goal", "outline", "branch")}
    with pytest.raises(ValueError, match="must close the block"):
        Dialect(name="open", **pairs)
    with pytest.raises(ValueError, match="two roles"):
        Dialect(name="twice", block=TagPair("<goal>", "</block>"), **pairs)


@pytest.mark.parametrize(
    ("text", "index", "parent", "label"),
    [
        ("1: add the tens", 1, "", "1"),
        ("\n2: what path 2 works out\n", 2, "", "2"),
        ("\n 1.2: nested", 2, "1", "1.2"),
        ("10.11.12: deep", 1, "", "10.11.12"),
        ("3 : spaced", 1, "", "3"),
        ("7: its own label wins", 1, "4", "7"),
        ("no label", 3, "", "3"),
        ("no label", 3, "2.1", "2.1.3"),
        ("1. add: a list item, not a label", 1, "", "1"),
        ("1.: not a label", 2, "", "2"),
        ("see 1: a label comes first", 2, "", "2"),
        ("", 1, "1", "1.1"),
        (":", 2, "", "2"),
    ],
)
def test_outline_label(text: str, index: int, parent: str, label: str) -> None:
    assert outline_label(text, index, parent) == label


# --- the room stands alone -----------------------------------------------------------


def test_structure_imports_neither_torch_nor_sglang() -> None:
    program = (
        "import sys, sglang_multiverse.structure as s; "
        "tags = s.TagTable.from_ids(s.NPR, {t: i for i, t in enumerate(s.NPR.tags)}); "
        "s.layout([0, 1], tags), s.parse([0, 1], tags); "
        "print(*sorted({n.partition('.')[0] for n in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert "sglang_multiverse" in loaded
    assert not loaded & {"torch", "sglang", "transformers", "tokenizers", "triton"}
