"""What hides the keys, on settings and commands as SGLang holds them."""

from __future__ import annotations

import pytest

from sglang_multiverse.engine.http import hide_arguments, hide_values


def test_values_under_a_keys_name_are_hidden() -> None:
    told = {"api_key": "a", "admin_api_key": None, "port": 3, "args": {"api_key": "b"}}
    assert hide_values(told) == {**told, "api_key": "<redacted>"}  # SGLang calls it for `args`
    assert hide_values(["api_key"]) == ["api_key"]


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ("--api-key a --port 3", "--api-key <redacted> --port 3"),
        ("--admin-api-key=a=b --api-key c", "--admin-api-key=<redacted> --api-key <redacted>"),
        (
            "--ssl-keyfile f --ssl-keyfile-password p",
            "--ssl-keyfile f --ssl-keyfile-password <redacted>",
        ),
        ("--api-key --api-key --tp 2", "--api-key <redacted> --tp 2"),
        ("--api-keys a --api-key", "--api-keys a --api-key"),
    ],
)
def test_arguments_after_a_keys_flag_are_hidden(argv: str, shown: str) -> None:
    assert hide_arguments(lambda found, config: " ".join(found), argv.split(), None) == shown
