"""The demo from start to end; `--help` lists what can be changed."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from openai import OpenAIError
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import report, view
from .client import Asker, DemoError
from .server import Server, ServerError
from .transcript import Transcript

PROG = "python -m sglang_multiverse.demo"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG, description="Watch a Multiverse model fork and join."
    )
    parser.add_argument("--model-path", help="a Multiverse model (default: the package's own)")
    parser.add_argument("--url", help="a server that runs already, such as http://127.0.0.1:30000")
    parser.add_argument("--prompt", help="what to ask (default: a small problem of four parts)")
    parser.add_argument(
        "--max-tokens", type=int, default=1024, help="of the answer (default: 1024)"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling (default: 0)")
    parser.add_argument(
        "--repeats", type=int, default=1, help="timed runs of each way (default: 1)"
    )
    parser.add_argument(
        "--pace",
        type=float,
        default=30.0,
        help="most steps a second that are shown on a terminal; 0: as they come (default: 30)",
    )
    parser.add_argument("--svg", type=Path, help="also save a picture of the result to this file")
    parser.add_argument("server_flags", nargs="*", help="after --: flags for the server")
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.url and (args.model_path or args.server_flags):
        parser.error("--url names a server that runs; it takes no --model-path and no flags")
    if args.max_tokens < 1 or args.repeats < 1 or args.pace < 0:
        parser.error("--max-tokens and --repeats are at least 1, --pace is at least 0")
    return args


@contextlib.contextmanager
def serving(args: argparse.Namespace, console: Console) -> Iterator[str]:
    """The address of a server, which is stopped at the end if it was started here."""
    if args.url:
        yield args.url.rstrip("/").removesuffix("/v1")
        return
    # A proxy cannot reach this machine's own address; in lower case it wins over upper case.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    path, name = (args.model_path, Path(args.model_path).name) if args.model_path else own(console)
    with Server(path, args.server_flags) as server:
        wait(server, name, console)
        yield server.url


def own(console: Console) -> tuple[Path, str]:
    """The directory and the name of the package's model, which is made at first use."""
    # Late: with --model-path or --url none of it is needed.
    from sglang_multiverse.bundled import BundledModelError, model_path, packaged
    from sglang_multiverse.bundled.progress import Bar

    try:
        with Bar(console) as bar:
            return model_path(bar), packaged().name
    except BundledModelError as error:
        raise DemoError(f"{error} (or give --model-path)") from error


def wait(server: Server, model: str, console: Console) -> None:
    """Show that something happens: most of a start is imports, and takes half a minute."""
    if not console.is_terminal:
        console.print("starting the server")
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("starting the server", total=1)
        server.wait(lambda stage: progress.update(task, description=f"starting: {stage}"))
        progress.update(task, description=f"serving {model}", completed=1)


def show(console: Console, asker: Asker, expected: str | None, args: argparse.Namespace) -> int:
    """Ask, show and measure; the exit code."""
    console.print(f"\n[bold]prompt[/bold]  {asker.prompt}\n")
    transcript = Transcript()
    with view.view_for(console, args.pace) as shown:

        def on_piece(path: str, text: str) -> None:
            transcript.add(path, text)
            shown.piece(path, text)

        answer = asker.watch(on_piece)
    console.print(report.linear(answer))
    if answer.finish_reason == "length":
        console.print("[yellow]cut off[/yellow] by --max-tokens")
    if expected is not None:
        console.print(report.correctness(answer, expected), highlight=False)
    if reason := report.failure(answer):
        console.print(f"[bold red]failed:[/bold red] {reason}")
        return 1
    table = measure(console, asker, args.repeats)
    console.print(table)
    if args.svg:
        branches = view.draw(transcript.trunk, report.PICTURE_WIDTH)
        report.save_picture(args.svg, branches, table)
    return 0


def measure(console: Console, asker: Asker, repeats: int) -> Table:
    """Time both ways in turn, so that whatever else the machine does hits both alike."""
    batched, alone = [], []
    with console.status("measuring") as status:
        for run in range(1, repeats + 1):
            status.update(f"measuring, {run} of {repeats}: branches as a batch")
            batched.append(asker.measure())
            status.update(f"measuring, {run} of {repeats}: branches one at a time")
            alone.append(asker.measure(max_parallel_branches=1))
    return report.comparison(batched, alone)


def _end(*_: object) -> None:
    """A polite request to end takes the same way out as Ctrl-C, which stops the server."""
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    console = Console()
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, _end)
    problem = json.loads((files(__package__) / "problem.json").read_text("utf-8"))
    prompt, expected = (
        (args.prompt, None) if args.prompt else (problem["prompt"], problem["answer"])
    )
    sampling = {
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "seed": args.seed,
    }
    try:
        with serving(args, console) as url:
            return show(console, Asker(url, prompt, sampling), expected, args)
    except (ServerError, DemoError, OpenAIError) as error:
        console.print("[bold red]failed:[/bold red]", end=" ")
        console.print(str(error), markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
