"""Install a lock's packages into the environment whose Python runs this.

Usage: ENV/bin/python scripts/install.py LOCK

The lock names everything, so nothing is resolved again; see ALONE in lock.py. uv does the work,
with a fifth of pip's processor time: it unpacks in parallel and compiles nothing ahead. It is
told what pip is configured to (indexes, certificates), since that is what people set; a UV_…
variable has the last word. Neither it nor its cache stays.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from pathlib import Path

UV = "uv==0.13.9"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
# pip's setting → uv's variable and what stands between several values there.
SETTINGS = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
    "no-index": ("UV_NO_INDEX", " "),
}


def settings(listed: str) -> dict[str, str]:
    """uv's variables for what `pip config list` prints; of one setting, the last line counts."""
    found: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):  # as pip reads them
        for line in listed.splitlines():
            key, _, value = line.partition("=")
            name = key.removeprefix(section)
            if name == key or name not in SETTINGS:
                continue
            variable, between = SETTINGS[name]
            found[variable] = between.join(str(ast.literal_eval(value)).split())
    return found


def main() -> None:
    lock = Path(sys.argv[1]).resolve()
    listed = subprocess.run([*PIP, "config", "list"], check=True, text=True, capture_output=True)
    with tempfile.TemporaryDirectory(dir=sys.prefix, prefix="install-") as work:
        own = {
            # As pip, which has no order of indexes. Linked files take no room twice.
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "UV_CACHE_DIR": f"{work}/cache",
            "UV_LINK_MODE": "hardlink",
            "UV_NO_CONFIG": "1",
        }
        environment = own | settings(listed.stdout) | os.environ
        tool = Path(work, "tool")
        subprocess.run(
            [*PIP, "install", "--quiet", "--no-cache-dir", "--no-deps", "--target", tool, UV],
            check=True,
        )
        command = [tool / "bin" / "uv", "pip", "install", "--quiet", "--no-progress", "--no-deps"]
        command += ["--python", sys.executable]
        if builds := [line for line in lock.read_text().split() if line.endswith("+cpu")]:
            known = subprocess.run(
                [*command, "--dry-run", *builds], env=environment, capture_output=True
            )
            if known.returncode:
                # PyTorch has an index of its own for CPU builds; uv knows where.
                environment.setdefault("UV_TORCH_BACKEND", "cpu")
        done = subprocess.run([*command, "--requirement", lock], env=environment)
    if done.returncode:
        raise SystemExit(f"install: uv could not install {lock.name}; its message is above")


if __name__ == "__main__":
    main()
