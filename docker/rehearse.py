"""Build the CPU image and run it where no container engine does: no daemon, no namespaces.

    python docker/rehearse.py --folder /var/tmp/rehearsal        as root; needs 12 GB there

debootstrap makes the Debian that the image starts from, buildah carries out `Dockerfile.cpu` in a
chroot, and what came out serves as the image's user, until its health check passes and a question
is answered with branches; then it is told to end. Printed are the size of each step and the times.

What it does not show: Debian's published image, Docker's own builder, and whatever needs
namespaces or cgroups (limits, read-only roots, networks).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parent.parent
BASE = "docker.io/library/debian:bookworm-slim"
IMAGE = "localhost/sglang-multiverse:cpu"
START_SECONDS = 900
LARGEST = 8  # parts of the environment that are listed
# What the demo asks: the package's model branches on it.
PROBLEM = ROOT / "python" / "sglang_multiverse" / "demo" / "problem.json"


class RehearsalError(Exception):
    """A step failed; the message says which, and where its log is."""


class Builder:
    """buildah, with storage of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command = ["buildah", "--root", str(folder / "storage")]
        self.command += ["--runroot", str(folder / "run")]
        # Copied layers and a chroot: what needs no rights beyond root's.
        settings = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(folder)}
        self.environment = {**os.environ, **settings}

    def __call__(self, *arguments: str, log: str = "buildah.log") -> str:
        """Run one command; returns what it printed on standard output."""
        path = self.folder / log
        with path.open("a") as errors:
            done = subprocess.run(
                [*self.command, *arguments],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                check=False,
            )
        if done.returncode:
            raise RehearsalError(
                f"buildah {arguments[0]} failed; see {path}\n{done.stdout[-2000:]}"
            )
        return done.stdout.strip()

    def has(self, image: str) -> bool:
        return image in self("images", "--all", "--format", "{{.Name}}:{{.Tag}}").split()


def make_base(builder: Builder) -> None:
    """`BASE` from Debian's archive; the published image is made the same way, and slimmed."""
    system, archive = builder.folder / "debian", builder.folder / "debian.tar"
    subprocess.run(
        ["debootstrap", "--variant=minbase", "bookworm", system, "http://deb.debian.org/debian"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run(["chroot", system, "apt-get", "clean"], check=True)
    subprocess.run(["tar", "--directory", system, "--create", "--file", archive, "."], check=True)
    shutil.rmtree(system)
    container = builder("from", "scratch")
    builder("add", container, str(archive), "/")
    builder("commit", "--rm", container, BASE)
    archive.unlink()


def build(builder: Builder, options: Sequence[str]) -> None:
    """Docker's format, because OCI's has no health check; unlayered, for each layer is a copy."""
    builder(
        *("build", "--layers=false", "--pull-never", "--format", "docker", *options),
        *("--file", str(ROOT / "docker" / "Dockerfile.cpu"), "--tag", IMAGE, str(ROOT)),
        log="build.log",
    )


def print_sizes(builder: Builder) -> None:
    """What the image's steps add, and the largest parts of the environment it carries."""
    container = builder("from", "--pull-never", IMAGE)
    system = Path(builder("mount", container))
    (packages,) = system.glob("opt/multiverse/lib/python3.*/site-packages")
    base = size_of(system) - size_of(system / "opt")
    debian = base_size(builder)
    print(f"{size_of(system):6.0f} MB  the image, of which")
    print(f"{debian:6.0f} MB  Debian")
    print(f"{base - debian:6.0f} MB  Python, from Debian, and the user")
    print(f"{size_of(system / 'opt'):6.0f} MB  the environment, of which")
    parts = sorted(((size_of(path), path.name) for path in packages.iterdir()), reverse=True)
    for size, name in parts[:LARGEST]:
        print(f"{size:6.0f} MB    {name}")
    builder("rm", container)


def base_size(builder: Builder) -> float:
    container = builder("from", "--pull-never", BASE)
    size = size_of(Path(builder("mount", container)))
    builder("rm", container)
    return size


def size_of(path: Path) -> float:
    """Megabytes of all files below; links and holes cost nothing."""
    files = (file.lstat() for file in [path, *path.rglob("*")] if not file.is_symlink())
    return sum(file.st_size for file in files) / 1e6


def on_port(words: Sequence[str], port: int) -> list[str]:
    """A command of the image for another port: the address is the host's here."""
    return [word.replace(":30000/", f":{port}/") for word in words]


def serve(builder: Builder, config: dict[str, Any], port: int) -> None:
    """Start, wait for the image's own health check, ask, end."""
    container = builder("from", "--pull-never", IMAGE)
    run = [*builder.command, "run", "--cap-drop", "all", container, "--"]
    log = builder.folder / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*run, *config["Entrypoint"], "--port", str(port)],
            env=builder.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        begun = time.monotonic()
        check = [*run, *on_port(config["Healthcheck"]["Test"][1:], port)]
        while subprocess.run(check, env=builder.environment, capture_output=True).returncode:
            if server.poll() is not None or time.monotonic() - begun > START_SECONDS:
                raise RehearsalError(f"the server did not become healthy; see {log}")
            time.sleep(2)
        print(f"healthy after {time.monotonic() - begun:.0f} s")
        print(f"the server runs as uid {uid_of_server(server.pid)}")
        print(json.dumps(ask(port)))
        os.killpg(server.pid, signal.SIGTERM)
        print(f"ended with {server.wait(120)} after SIGTERM")
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        builder("rm", container)


def uid_of_server(group: int) -> int:
    """Of the process group's member that runs Python: what the image started."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if os.getpgid(int(status.parent.name)) != group:
                continue
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except (ProcessLookupError, FileNotFoundError):
            continue
        if fields["Name"].strip().startswith(("python", "sglang")):
            return int(fields["Uid"].split()[0])
    raise RehearsalError("no process of the server was found")


def ask(port: int) -> dict[str, Any]:
    prompt = json.loads(PROBLEM.read_text())["prompt"]
    body = {"model": "default", "messages": [{"role": "user", "content": prompt}]}
    request = Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps({**body, "temperature": 0}).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=120) as answer:
        found: dict[str, Any] = json.load(answer)["choices"][0]["multiverse"]
    if found["branches"] < 2:
        raise RehearsalError(f"the answer did not branch: {found}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="for images and logs")
    parser.add_argument("--port", type=int, default=30999, help="where it serves meanwhile")
    parser.add_argument(
        "--build-options",
        type=shlex.split,
        default=[],
        help="more options of `buildah build`, such as what a package mirror needs",
    )
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    builder = Builder(asked.folder.resolve())
    try:
        if not builder.has(BASE):
            make_base(builder)
        begun = time.monotonic()
        build(builder, asked.build_options)
        print(f"built in {time.monotonic() - begun:.0f} s")
        image = json.loads(builder("inspect", "--type", "image", IMAGE))
        print_sizes(builder)
        serve(builder, image["Docker"]["config"], asked.port)
    except (RehearsalError, subprocess.CalledProcessError, OSError) as error:
        print(f"rehearse: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
