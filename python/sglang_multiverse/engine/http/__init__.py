"""What runs in SGLang's HTTP process: requests in, answers out.

Everything here is a hook on a method of SGLang; nothing is copied from it, and
no route is added; `engine.upstream` names their targets. Nothing of SGLang,
FastAPI or torch is imported at load time, because the plugin loads in every
process of SGLang.

The way of a request:

1. `admission` checks the `multiverse` field and puts it where SGLang already
   carries a request's own parameters, `sampling_params.custom_params`.
2. `prompts` keeps tags in a user's text from being read as structure.
3. `samples` gives each of `n` answers its own seed; `aborts` knows them by the client's id.
4. `outputs` takes what the scheduler attached to the answer into `meta_info`, where `live`
   makes the ids of live branches text,
5. and `relay` from there into the choices of the OpenAI routes; `logprobs` and `messages`
   mend what SGLang leaves out of a stream.

`keys` stay out of what the server says of itself.
"""

from __future__ import annotations

from .aborts import abort_request, handle_batch
from .admission import contract_error
from .keys import hide_arguments, hide_values
from .messages import messages_answer, messages_stream
from .outputs import chat_logprobs, deliver, take_results
from .prompts import process_messages
from .relay import generate, handle_request, label_stream
from .samples import send_one_request
from .support import keep_served_name
from .trim import trim_stop

__all__ = [
    "abort_request",
    "chat_logprobs",
    "contract_error",
    "deliver",
    "generate",
    "handle_batch",
    "handle_request",
    "hide_arguments",
    "hide_values",
    "keep_served_name",
    "label_stream",
    "messages_answer",
    "messages_stream",
    "process_messages",
    "send_one_request",
    "take_results",
    "trim_stop",
]
