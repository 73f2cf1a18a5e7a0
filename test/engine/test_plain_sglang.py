"""SGLang's own launcher, no flags, an ordinary model: installed and out of the way."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from server import Server
from sglang_multiverse.kernels.cpu import library


def make_model(path: Path) -> None:
    """A random Llama with a byte-level tokenizer that knows no Multiverse tag."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*letters, "<s>", "</s>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        chat_template="{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}",
    ).save_pretrained(path)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            bos_token_id=vocabulary["<s>"],
            eos_token_id=vocabulary["</s>"],
        )
    ).save_pretrained(path)


def plain_server(folder: Path, stack: ExitStack) -> Server:
    """A job."""
    make_model(folder)
    server = Server(model=folder)
    launcher = [sys.executable, "-m", "sglang.launch_server"]
    server.command = [*launcher, "--model-path", str(folder), "--port", str(server.port)]
    stack.callback(server.stop)
    return server.start()


pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.ahead(job=plain_server)]


@pytest.fixture
def server(ahead: Server) -> Server:
    return ahead


def test_generate(server: Server) -> None:
    answer = server.generate("hello", sampling_params={"max_new_tokens": 8})
    assert answer["meta_info"]["completion_tokens"] == 8


def test_chat(server: Server) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    answer = client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "hi"}], max_tokens=8
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 8


def test_it_says_what_it_decided(server: Server) -> None:
    assert server.log.count("Multiverse is off") == 1
    assert "Failed to load plugin" not in server.log
    assert "Failed to apply hooks" not in server.log
    decided = server.http.get("/server_info").json()
    if decided["device"] == "cpu":
        compiled = library.available() is None
        assert decided["attention_backend"] == ("multiverse_cpu" if compiled else "torch_native")
        assert decided["dtype"] == "float32"
