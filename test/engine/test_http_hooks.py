"""Every target of a hook exists in SGLang and takes what the hook passes on."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys

import pytest

from sglang_multiverse.engine.upstream import http_hooks

# What the hooks rely on: the parameters of the target, as they call it.
PARAMETERS = {
    "generate_contract_error": ["body"],
    "generate_request": ["self", "obj", "request"],
    "_send_one_request": ["self", "tokenized_obj"],
    "update_request_meta_info": [
        "self",
        "meta_info",
        "state",
        "customized_info",
        "index",
        "finish_reason",
    ],
    "_wait_one_response": ["self", "obj", "request"],
    "_handle_batch_request": ["self", "obj", "request", "request_states"],
    "abort_request": ["self", "rid", "abort_all"],
    "_update_model_path_info": ["self", "model_path", "load_format"],
    "_convert_response": ["self", "response"],
    "_generate_anthropic_stream": [
        "self",
        "adapted_request",
        "processed_request",
        "anthropic_request",
        "raw_request",
    ],
    "trim_matched_stop": ["self", "output", "finished_reason", "no_stop_trim"],
    "handle_request": ["self", "request", "raw_request"],
    "_process_messages": ["self", "request", "is_multimodal", "output_constrained"],
    "_build_token_logprobs_from_raw": ["self", "output_token_logprobs", "output_top_logprobs"],
    "_generate_chat_stream": ["self", "adapted_request", "request", "raw_request"],
    "_generate_completion_stream": ["self", "adapted_request", "request", "raw_request"],
    "redact_watermark_secrets": ["value", "in_watermark_config"],
    "redact_watermark_command_line": ["argv", "watermark_config"],
    "get_default_attn_backend": ["server_args", "use_mla_backend", "model_config"],
}


@pytest.mark.parametrize("target", [hook.target for hook in http_hooks()])
def test_target(target):
    found = inspect.unwrap(pkgutil.resolve_name(target))
    assert list(inspect.signature(found).parameters) == PARAMETERS[target.rpartition(".")[2]]


def test_each_target_is_hooked_once():
    targets = [hook.target for hook in http_hooks()]
    assert len(targets) == len(set(targets)) == len(PARAMETERS)


def test_other_names_the_hooks_use():
    from sglang.srt.entrypoints.http_server import generate_request, get_global_state
    from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat
    from sglang.srt.entrypoints.openai.serving_completions import OpenAIServingCompletion
    from sglang.srt.utils.json_response import orjson_response

    assert callable(get_global_state)
    assert callable(orjson_response)
    # The route must ask for the contract before it starts a stream, and both
    # OpenAI routes must go through the hooked frame.
    assert "generate_contract_error(await request.json())" in inspect.getsource(generate_request)
    for serving in (OpenAIServingChat, OpenAIServingCompletion):
        assert "handle_request" not in vars(serving)


def test_loading_is_cheap():
    """The plugin loads in every process of every SGLang of the environment."""
    code = (
        "import sys, sglang_multiverse.engine.http\n"
        "print([m for m in ('torch', 'fastapi', 'sglang', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"
