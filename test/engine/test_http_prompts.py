"""Tags in a chat: structure in assistant messages, text everywhere else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest

from sglang_multiverse.engine.http.prompts import break_chat, process_messages
from sglang_multiverse.engine.http.support import Support
from sglang_multiverse.engine.options import MultiverseArgs
from sglang_multiverse.structure import (
    MULTIVERSE,
    WORD_JOINER,
    add_tags,
    break_tags,
    resolve_tags,
)

TAGS = MULTIVERSE.tags


@pytest.mark.parametrize("tag", TAGS)
def test_every_tag_is_broken_after_its_first_character(tag):
    assert break_tags(f"a{tag}b", MULTIVERSE) == f"a<{WORD_JOINER}{tag[1:]}b"


@given(st.lists(st.sampled_from([*TAGS, "<", ">", "/", "<Path", "Goal>", "text", " "])))
def test_no_tag_survives_and_nothing_else_changes(parts):
    text = "".join(parts)
    broken = break_tags(text, MULTIVERSE)
    assert not any(tag in broken for tag in TAGS)
    assert broken.replace(WORD_JOINER, "") == text
    assert break_tags(broken, MULTIVERSE) == broken


def chat(*messages, **more):
    return ChatCompletionRequest(model="m", messages=list(messages), **more)


@pytest.mark.parametrize("role", ["user", "system", "developer", "tool"])
def test_every_other_role_is_broken(role):
    request = chat({"role": role, "content": "what is <Goal>?", "tool_call_id": "1"})
    break_chat(request, MULTIVERSE)
    assert request.messages[0].content == f"what is <{WORD_JOINER}Goal>?"
    assert request.messages[0].role == role


def test_text_parts_are_broken_and_pictures_are_not_copied():
    parts = [
        {"type": "text", "text": "<Path>"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    request = chat({"role": "user", "content": parts})
    before = request.messages[0].content[1]
    break_chat(request, MULTIVERSE)
    assert request.messages[0].content[0].text == f"<{WORD_JOINER}Path>"
    assert request.messages[0].content[1] is before


def test_assistant_messages_are_kept_as_structure():
    answer = "<Parallel><Goal><Outline>1: a</Outline></Goal>"
    request = chat(
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "on"},
    )
    messages = list(request.messages)
    break_chat(request, MULTIVERSE)
    assert request.messages[1].content == answer
    assert all(new is old for new, old in zip(request.messages, messages, strict=True))


def test_tools_are_broken_wherever_a_template_may_print_them():
    tool = {
        "type": "function",
        "function": {
            "name": "look",
            "description": "reads <Path>",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "string", "enum": ["</Goal>", "b"]}},
            },
        },
    }
    request = chat(
        {"role": "user", "content": "x"},
        tools=[tool],
        chat_template_kwargs={"note": "<Think>", "enable_thinking": False},
    )
    break_chat(request, MULTIVERSE)
    function = request.tools[0].function
    assert function.description == f"reads <{WORD_JOINER}Path>"
    assert function.parameters["properties"]["a"]["enum"] == [f"<{WORD_JOINER}/Goal>", "b"]
    assert function.name == "look"
    assert request.chat_template_kwargs == {
        "note": f"<{WORD_JOINER}Think>",
        "enable_thinking": False,
    }


@pytest.mark.parametrize(("dialect", "broken"), [(MULTIVERSE, True), (None, False)])
def test_the_hook_leaves_plain_models_alone(dialect, broken):
    serving = SimpleNamespace(
        tokenizer_manager=SimpleNamespace(multiverse_support=Support(MultiverseArgs(), dialect))
    )
    request = chat({"role": "user", "content": "<Goal>"})

    def original(serving, request, is_multimodal, *, output_constrained):
        return is_multimodal, output_constrained, request.messages[0].content

    result = process_messages(original, serving, request, False, output_constrained=True)
    assert result == (False, True, f"<{WORD_JOINER}Goal>" if broken else "<Goal>")


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level tokenizer with the tags, as the public checkpoints have."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made = PreTrainedTokenizerFast(tokenizer_object=core)
    add_tags(made)
    return made


@pytest.mark.parametrize("tag", TAGS)
def test_a_broken_tag_is_not_a_tag_to_the_tokenizer(tokenizer, tag):
    table = resolve_tags(tokenizer)
    text = f"see {tag}{tag} here"
    assert table.has_tags(tokenizer.encode(text))
    assert not table.has_tags(tokenizer.encode(break_tags(text, MULTIVERSE)))
