"""Running the page's modules without a browser: under Node, where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import sglang_multiverse.playground

STATIC = Path(sglang_multiverse.playground.__file__).parent / "static"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def run(code: str, data: Any = None) -> Any:
    """What `code` leaves in `result`: an async body with `data`, and the modules by `load`."""
    script = f"""
        const load = (name) => import({json.dumps((STATIC / "js").as_uri())} + `/${{name}}.js`);
        let source = "";
        for await (const part of process.stdin) source += part;
        const data = JSON.parse(source);
        let result;
        {code}
        process.stdout.write(JSON.stringify(result));
    """
    done = subprocess.run(
        ["node", "--no-warnings", "--input-type=module", "--eval", script],
        input=json.dumps(data),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
