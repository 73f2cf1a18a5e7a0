"""What the curator's stand-in for a model says: chat completions known beforehand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...stand_in import Respond, Response, Server
from ..request import estimate

__all__ = [
    "Respond",
    "Response",
    "Server",
    "completion",
    "problems_of",
    "question_of",
    "stage_of",
]

_TASKS = {
    "# Task: outline": "outline",
    "# Task: dependencies": "graph",
    "# Task: sentences of each step": "refill",
    "# Task: goals and conclusions": "plan",
    "# Task: paths that stand alone": "rewrite",
}


def completion(text: str, request: Mapping[str, Any], finish: str = "stop") -> Response:
    """A chat completion."""
    prompt = sum(estimate(message["content"]) for message in request["messages"])
    answer = estimate(text)
    body = {
        "id": "known",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
        },
    }
    return Response(body=json.dumps(body).encode())


def question_of(request: Mapping[str, Any]) -> str:
    """The question that a request of the curator is about."""
    text: str = request["messages"][1]["content"]
    return text.removeprefix("# Question\n\n").partition("\n\n# Reasoning\n\n")[0]


def stage_of(request: Mapping[str, Any]) -> str:
    """The stage that a request of the curator belongs to."""
    text: str = request["messages"][1]["content"]
    return _TASKS[max(_TASKS, key=text.rfind)]


def problems_of(request: Mapping[str, Any]) -> str:
    """What was wrong with the answer before; empty for a first one."""
    messages = request["messages"]
    return str(messages[-1]["content"]) if len(messages) > 2 else ""
