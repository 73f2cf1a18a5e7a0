"""The wheel and the sdist hold the tree; what pip installs from them serves."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from asking import check_idle, user
from models.problems import check, generate
from server import Server

ROOT = Path(__file__).resolve().parents[2]
PIP = "-m pip --disable-pip-version-check --quiet"
OFFLINE = "--no-deps --no-build-isolation --no-index"
LIBRARY = "sglang_multiverse/kernels/cpu/libmultiverse_cpu.so"
# In the tree for those who read it, not for those who install.
NOT_INSTALLED = ("/cpu/src/", "/playground/jsconfig", "/README.md")


def python(*command: str, cwd: Path, interpreter: str | Path = sys.executable) -> str:
    done = subprocess.run(
        [str(interpreter), *command], cwd=cwd, text=True, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Built(NamedTuple):
    sdist: Path
    wheel: Path
    tree: set[str]  # the package's files, as a wheel names them


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """An sdist of a clean copy of the tree, and the wheel that pip makes of that sdist."""
    place = tmp_path_factory.mktemp("built")
    tree = place / "tree"
    kept = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so")
    for name in ("python", "kernels"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=kept)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    package = tree / "python"
    files = {str(path.relative_to(package)) for path in walk(package) if path.is_file()}
    python("-c", "from setuptools import build_meta as b; b.build_sdist('..')", cwd=tree)
    (sdist,) = place.glob("*.tar.gz")
    python(*PIP.split(), "wheel", *OFFLINE.split(), str(sdist), cwd=place)
    (wheel,) = place.glob("*.whl")
    return Built(sdist, wheel, files)


def walk(folder: Path) -> list[Path]:
    """Files below, through links: rglob does not enter `kernels`."""
    inside = sorted(folder.iterdir())
    return [each for one in inside for each in (walk(one) if one.is_dir() else [one])]


def test_the_wheel_holds_the_package(built: Built) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    wanted = {name for name in built.tree if not any(part in name for part in NOT_INSTALLED)}
    assert "sglang_multiverse/kernels/extend.py" in wanted
    assert "sglang_multiverse/playground/static/index.html" in wanted
    assert not wanted - names
    compiled = {LIBRARY} if shutil.which("c++") else set()
    assert {name for name in names if ".dist-info/" not in name} - built.tree == compiled
    assert built.wheel.name.split("-", 2)[2].startswith("py3-none-linux_")


def test_the_sdist_holds_the_package_and_what_builds_it(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        members = archive.getmembers()
    names = {member.name.partition("/")[2] for member in members}
    assert not [member.name for member in members if member.issym() or member.islnk()]
    wanted = {f"python/{name}" for name in built.tree if "/cpu/src/" not in name}
    wanted = {name for name in wanted if not any(part in name for part in NOT_INSTALLED)}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "kernels/cpu/src").iterdir()}
    assert not wanted - names
    assert not (sources | {"setup.py", "pyproject.toml", "kernels/cpu/build.py"}) - names


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a venv that has the wheel, and this environment's other packages."""
    place = tmp_path_factory.mktemp("installed")
    python("-m", "venv", "--without-pip", "venv", cwd=place)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(place / "venv")}))
    own = [path for path in map(Path, sys.path) if path.name == "site-packages"]
    others = [path for path in own if (path / "sglang").exists()]
    lines = [f"import site; site.addsitedir({str(path)!r})" for path in others]
    (site / "zz_others.pth").write_text("\n".join(lines) + "\n")
    interpreter = place / "venv" / "bin" / "python"
    python(*PIP.split(), "install", *OFFLINE.split(), str(built.wheel), cwd=place,
           interpreter=interpreter)  # fmt: skip
    where = python(
        "-c", "import sglang_multiverse as m; print(m.__file__)", cwd=place, interpreter=interpreter
    )
    assert Path(where.strip()).is_relative_to(site)
    return interpreter


@pytest.mark.slow
def test_the_installed_server_says_what_it_takes(installed: Path, tmp_path: Path) -> None:
    said = python(
        "-m", "sglang_multiverse.launch_server", "--help", cwd=tmp_path, interpreter=installed
    )
    assert "--model-path" in said and "--multiverse-" in said
    checked = "from sglang_multiverse.kernels.cpu import library; print(library.available())"
    if shutil.which("c++"):
        assert python("-c", checked, cwd=tmp_path, interpreter=installed).strip() == "None"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_installed_server_answers_and_has_its_page(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # whose modules `python -m` would find first
    server = Server()
    server.command[0] = str(installed)
    problem = generate(3, "held-out", "flat")
    with server:
        body = {
            "model": "default",
            "messages": user(problem.prompt),
            "temperature": 0,
            "max_tokens": 600,
            "skip_special_tokens": False,
        }
        answer = server.http.post("/v1/chat/completions", json=body).json()["choices"][0]
        assert check(problem, answer["message"]["content"])
        assert answer["multiverse"]["blocks"] == 1
        page = server.http.get("/playground/")
        assert page.status_code == 200 and "<script" in page.text
        check_idle(server)
