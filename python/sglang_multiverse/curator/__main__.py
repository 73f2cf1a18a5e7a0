"""`python -m sglang_multiverse.curator run|show|report|demo`."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from sglang_multiverse.records import exit_code
from sglang_multiverse.settings import add_flags
from sglang_multiverse.training.data import plots

from . import output, show
from .config import RunConfig, make_config
from .endpoint import Endpoint
from .errors import CuratorError
from .estimate import Estimate, Unwatched
from .extras import require
from .finish import Counter, make_counter
from .pipeline import Curator, Outcome
from .progress import Shown
from .sources import Source
from .store import Store

PROG = "python -m sglang_multiverse.curator"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; {self.prog} --help lists what there is\n")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROG, description="Turn sequential reasoning into Multiverse training data."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="curate a source; the same command again goes on where it was",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    run.add_argument("source", help="a JSONL file, - for standard input, or hf:NAME")
    run.add_argument("--out", type=Path, required=True, help="directory of records and results")
    add_flags(run, RunConfig)
    one = commands.add_parser("show", help="print source, graph, tree and text of an example")
    one.add_argument("id", nargs="?", help="as in train.jsonl (default: the first)")
    whole = commands.add_parser("report", help="print what became of a run")
    for command in (one, whole):
        command.add_argument("--out", type=Path, required=True, help="directory of the run")
    shown = commands.add_parser("demo", help="curate bundled chains, asking a local stand-in")
    shown.add_argument("--out", type=Path, help="directory to keep chains and results in")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(arguments)
    return exit_code(lambda: _dispatch(args), CuratorError)


def _dispatch(args: argparse.Namespace) -> int:
    match args.command:
        case "run":
            flags = {k: v for k, v in vars(args).items() if k not in ("command", "source", "out")}
            code, files = run(args.source, args.out, make_config(flags))
            for file in files:
                print(file)
            return code
        case "show":
            return _show(args.out, args.id)
        case "report":
            with Store(args.out, read_only=True) as store:
                return 1 if show.report(store, Console()) else 0
        case _:
            from .demo import demo

            return demo(args.out)


def run(where: str, out: Path, config: RunConfig) -> tuple[int, list[Path]]:
    """Curate a source.

    Returns:
        The exit code, 1 where an example is not done, and the files that were written.

    Raises:
        CuratorError: before anything was written over.
    """
    console = Console(stderr=True)
    require()
    if config.plots:
        _require_plots()
    counter = make_counter(config.tokenizer)
    source = Source(where, config)
    source.check()
    if source.repeated:
        console.print(f"{source.repeated} rows repeat earlier ones and are left out")
    if config.dry_run:
        _dry_run(source, out, config, counter)
        return 0, []
    with Store(out) as store:
        outcome, model = asyncio.run(_curate(source, store, config, counter, console))
        for name, why in list(outcome.unfinished.items())[:5]:
            console.print(f"{name} is not finished: {why}", markup=False, soft_wrap=True)
        if outcome.stopped:
            said = f"stopped: {outcome.stopped}; the same command goes on from here"
            console.print(said, markup=False, soft_wrap=True)
        if config.only not in (0, 5):
            console.print(f"stage {config.only} was asked anew; run without --only to go on")
            return 0, []
        files = output.write(
            store,
            out,
            family=output.family_of(where),
            about=output.about(_command(where, config), model, store, _rules(config)),
            counted_with=counter.name,
            with_plots=config.plots,
        )
        left = show.report(store, Console())
    return (1 if left else 0), files


async def _curate(
    source: Source, store: Store, config: RunConfig, counter: Counter, console: Console
) -> tuple[Outcome, str]:
    endpoint = Endpoint(config, config.api_key)
    try:
        model = await endpoint.first_model()
        with Shown(console, len(source)) as shown:
            curator = Curator(config, endpoint, store, counter, shown, model)
            return await curator.run(source), model
    finally:
        await endpoint.close()


async def _count(
    source: Source, store: Store, config: RunConfig, counter: Counter, counted: Estimate
) -> None:
    """Run against nobody; records are found again under the model's name, which is asked for."""
    endpoint = Endpoint(config, config.api_key)
    try:
        model = config.model or await endpoint.first_model()
    except CuratorError:
        model = ""  # nothing can have been recorded under it
    finally:
        await endpoint.close()
    await Curator(config, counted, store, counter, Unwatched(), model).run(source)


def _dry_run(source: Source, out: Path, config: RunConfig, counter: Counter) -> None:
    console = Console()
    counted = Estimate(config)
    with Store(out, in_memory=True) as store:
        asyncio.run(_count(source, store, config, counter, counted))
    console.print(counted.table())
    console.print(
        f"{len(source):,} examples, about {counted.tokens:,} tokens if every one goes through all "
        "stages and no answer is sent back"
        + (f"; cost {counted.cost:,.2f}" if counted.cost else ""),
        soft_wrap=True,
    )


def _show(out: Path, name: str | None) -> int:
    with Store(out, read_only=True) as store:
        stored = store.by_id(name) if name else next((s for _, s in store.listed() if s), None)
        if stored is None:
            some = ", ".join(store.ids(5))
            raise CuratorError(
                f"id: {name!r} is no finished example of {out}; there are: {some}, …"
            )
        failed = stored.status == "failed"
        Console().print(show.failure(stored, store) if failed else show.example(stored))
    return 0


def _command(where: str, config: RunConfig) -> str:
    """The command without this machine's paths and addresses."""
    name = where if where.startswith("hf:") or where == "-" else Path(where).name
    said = [f"{PROG} run {name}"]
    default = RunConfig()
    shown = ("model", "preset", "min_parallelism", "max_edit", "strict", "limit", "temperature")
    for field in shown:
        value = getattr(config, field)
        if value != getattr(default, field):
            flag = "--" + field.replace("_", "-")
            said.append(flag if value is True else f"{flag} {value}")
    return " ".join(said)


def _rules(config: RunConfig) -> str:
    return (
        "Rewritten paths keep every number, formula and name, and are within a normalised edit "
        f"distance of {config.max_edit:g} of their source."
    )


def _require_plots() -> None:
    try:
        plots.require()
    except plots.MissingPlotsError as error:
        raise CuratorError(f"plots: {error}") from error


if __name__ == "__main__":
    raise SystemExit(main())
