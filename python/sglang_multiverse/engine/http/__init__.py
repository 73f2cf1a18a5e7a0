"""What runs in SGLang's HTTP process: requests in, answers out.

Everything here is a hook on a method of SGLang; nothing is copied from it, and
no route is added. `HTTP_HOOKS` lists them as data; the engine's plugin
registers them. Nothing of SGLang, FastAPI or torch is imported at load time,
because the plugin loads in every process of SGLang.

The way of a request:

1. `admission` checks the `multiverse` field and puts it where SGLang already
   carries a request's own parameters, `sampling_params.custom_params`.
2. `prompts` keeps tags in a user's text from being read as structure.
3. `samples` gives each of `n` answers its own seed.
4. `outputs` takes what the scheduler attached to the answer into `meta_info`,
5. and `relay` from there into the choices of the OpenAI routes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .admission import contract_error
from .outputs import chat_logprobs, deliver, take_results
from .prompts import process_messages
from .relay import generate, handle_request, label_stream
from .samples import send_one_request

if TYPE_CHECKING:
    from collections.abc import Callable

_MANAGER = "sglang.srt.managers.tokenizer_manager.TokenizerManager"
_BASE = "sglang.srt.entrypoints.openai.serving_base.OpenAIServingBase"
_CHAT = "sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat"
_COMPLETION = "sglang.srt.entrypoints.openai.serving_completions.OpenAIServingCompletion"

# (target in SGLang, hook, kind of hook)
HTTP_HOOKS: tuple[tuple[str, Callable[..., Any], str], ...] = (
    ("sglang.srt.entrypoints.api_contract.generate_contract_error", contract_error, "around"),
    (f"{_MANAGER}.generate_request", generate, "around"),
    (f"{_MANAGER}._send_one_request", send_one_request, "around"),
    (f"{_MANAGER}.update_request_meta_info", take_results, "around"),
    (f"{_MANAGER}._wait_one_response", deliver, "around"),
    (f"{_BASE}.handle_request", handle_request, "around"),
    (f"{_CHAT}._process_messages", process_messages, "around"),
    (f"{_CHAT}._build_token_logprobs_from_raw", chat_logprobs, "around"),
    (f"{_CHAT}._generate_chat_stream", label_stream, "around"),
    (f"{_COMPLETION}._generate_completion_stream", label_stream, "around"),
)

__all__ = ["HTTP_HOOKS"]
