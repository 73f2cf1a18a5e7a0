"""The page as one file, the command that makes it, and the wheel that carries it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from demo.pieces import LINEAR
from playground.node import needs_node, run
from sglang_multiverse import view
from sglang_multiverse.playground import File, offline_page
from sglang_multiverse.playground.bundle import BundleError, join_modules

ROOT = Path(__file__).resolve().parents[2]


def script(text: str) -> File:
    return File("text/javascript", text.encode())


def data_of(page: str) -> dict[str, object]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, object] = json.loads(found[1])
    return data


def test_its_policy_lets_only_its_own_scripts_and_styles_in() -> None:
    page = offline_page({"title": "t", "source": LINEAR})
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None and "'unsafe" not in policy[1]
    inside = re.findall(r"<script>(.*?)</script>|<style>(.*?)</style>", page, re.DOTALL)
    assert len(inside) == 3
    for parts in inside:
        digest = hashlib.sha256("".join(parts).encode()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy[1]
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert not re.search(
        r"<(?:link|img|iframe)\b|\bsrc=", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    )


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!-- <script>", "@@SCRIPT@@ \\u003c $& $'"]
)
def test_data_stay_data(text: str) -> None:
    page = offline_page({"title": text, "source": text})
    assert data_of(page) == {"title": text, "source": text}
    assert page.count("</script>") == 3


@needs_node
def test_modules_are_joined_in_the_order_of_need() -> None:
    files = {
        "js/a.js": script(
            'import { two } from "./b.js";\nimport { one } from "./c.js";\n'
            "export const sum = one + two();"
        ),
        "js/b.js": script(
            'import { one } from "./c.js";\nexport function two() {\n  return 2 * one;\n}'
        ),
        "js/c.js": script("export const one = 1;"),
    }
    joined = join_modules(files, "js/a.js")
    assert joined.count("const one = 1") == 1
    assert run("result = new Function(data + '; return $a.sum')();", joined) == 3


@pytest.mark.parametrize(
    "line", ["export default 1;", 'import * as b from "./b.js";', "export { a };"]
)
def test_what_cannot_be_joined_is_refused(line: str) -> None:
    with pytest.raises(BundleError, match=re.escape(line)):
        join_modules({"js/a.js": script(line)}, "js/a.js")


def test_the_command_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs.jsonl").write_text(json.dumps({"output": LINEAR}), "utf-8")
    assert view.main(["runs.jsonl"]) == 0
    assert capsys.readouterr().out == "runs.html\n"
    data = data_of((tmp_path / "runs.html").read_text("utf-8"))
    assert data == {"title": "runs.jsonl", "source": json.dumps({"output": LINEAR})}


def test_the_command_reads_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINEAR.encode())))
    assert view.main(["-", "--out", str(tmp_path / "a.html")]) == 0
    assert data_of((tmp_path / "a.html").read_text("utf-8"))["source"] == LINEAR


def test_what_cannot_be_read_or_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bytes").write_bytes(b"ab\xff")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "text").write_text("a")
    for argv, said in (
        ([str(tmp_path / "none")], "none: No such file"),
        ([str(tmp_path / "bytes")], "not UTF-8 text (byte 2)"),
        ([str(tmp_path / "empty")], "holds no text"),
        (
            [str(tmp_path / "text"), "--out", str(tmp_path / "no" / "a.html")],
            "a.html: No such file",
        ),
    ):
        assert view.main(argv) == 2
        assert said in capsys.readouterr().err


def test_a_wheel_carries_the_page(tmp_path: Path) -> None:
    # From a copy: what an earlier build left in the tree would go into the wheel, too.
    tree = tmp_path / "tree"
    for name in ("python", "kernels"):
        kept = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=kept)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = "-m pip wheel --no-deps --no-build-isolation --no-index --quiet --wheel-dir"
    subprocess.run(
        [sys.executable, *command.split(), str(tmp_path), str(tree)], check=True, timeout=120
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    static = ROOT / "python" / "sglang_multiverse" / "playground" / "static"
    wanted = {
        f"sglang_multiverse/playground/static/{p.relative_to(static)}"
        for p in static.rglob("*")
        if p.is_file()
    }
    assert len(wanted) > 20 and wanted <= names
    assert "sglang_multiverse/view.py" in names
