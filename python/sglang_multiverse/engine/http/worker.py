"""The app of a further HTTP process (`--tokenizer-worker-num`), where SGLang loads no plugins."""

from sglang.srt.plugins import load_plugins

from .. import upstream

load_plugins()
upstream.check_hooks(upstream.http_hooks())

from sglang.srt.entrypoints.http_server import app  # noqa: E402  (imported with the hooks)

__all__ = ["app"]
