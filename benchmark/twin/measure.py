"""The package's model against its autoregressive twin, by the evaluation's own commands.

    python benchmark/twin/measure.py                    # about 75 minutes on two idle cores
    python benchmark/twin/measure.py --plan             # what it does, and how long that takes
    python benchmark/twin/measure.py --twin BUNDLE --bundle BUNDLE --out DIR --limit 54 --rounds 1

Serves both, each from its bundle, and on the same new problems: `run` of the model, of the model
without the guard (`unguarded`) and of the twin; `compare` of the two; `budget` and `latency` with
the twin as the baseline. Killed at any moment, the same command goes on where it was. The reports
go to `results/twin`, one directory each, without the records; `card.py` makes the model card of
them. Nothing else should run meanwhile: the servers have all cores.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "test")]

from lineage import TwinError, check_twins, served_as  # noqa: E402
from plan import LISTS, Settings, Step, seconds, steps  # noqa: E402

from server import Server, ServerError  # noqa: E402
from sglang_multiverse.bundled import BundledModelError, model_path  # noqa: E402
from sglang_multiverse.evaluation import __main__ as evaluation  # noqa: E402
from sglang_multiverse.settings import add_flags, from_flags  # noqa: E402

LARGEST = 100_000
"""Bytes of a figure that is kept."""
# The pool checks of the tests cost time in every step.
ENVIRONMENT: Mapping[str, str] = {
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "0",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "0",
    "SGLANG_CHECK_KV_PAGE_INVARIANTS": "0",
}


class At(Server):
    """A bundle's model on a port that is known beforehand, so that a report's commands are too.

    Its name has the bundle's digest in it: records of other weights are another model's.
    """

    def __init__(self, bundle: Path, port: int, threads: int, most: int) -> None:
        super().__init__(
            *("--served-model-name", served_as(bundle)),
            model=model_path(bundle=bundle),
            # Prompt and answer of each of the most that are in work at once.
            pool=1024 * most,
            port=port,
            OMP_NUM_THREADS=str(threads),
            **ENVIRONMENT,
        )


@contextmanager
def serving(settings: Settings) -> Iterator[list[str]]:
    """Both models until the end; the addresses of the Multiverse model and of the twin."""
    most = max(16, settings.concurrency, *settings.batch_sizes)
    with ExitStack() as stack:
        yield [
            stack.enter_context(At(Path(bundle), settings.port + place, settings.threads, most)).url
            + "/v1"
            for place, bundle in enumerate((settings.bundle, settings.twin))
        ]


def keep(step: Step, work: Path, out: Path) -> None:
    """Copy a step's report, results and figures, in the place of earlier ones."""
    source, target = work / step.name, out / step.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in [source / "report.md", source / "results.json", *sorted(source.glob("*.svg"))]:
        if path.suffix == ".svg" and path.stat().st_size > LARGEST:
            raise TwinError(f"{path}: more than {LARGEST} bytes")
        shutil.copy(path, target)


def measure(settings: Settings, console: Console) -> int:
    """All steps; the first exit code that is not 0.

    Raises:
        TwinError, BundledModelError, ServerError
    """
    check_twins(Path(settings.bundle), Path(settings.twin))
    guess = {name: about / 60 for name, about in seconds(settings).items()}
    console.print(
        f"{settings.problems} problems, about {sum(guess.values()):.0f} minutes on two idle cores: "
        + ", ".join(f"{name} {minutes:.0f}" for name, minutes in guess.items()),
        highlight=False,
        soft_wrap=True,
    )
    if settings.plan:
        return 0
    with serving(settings) as urls:
        for step in steps(settings, *urls):
            begun = time.monotonic()
            if code := evaluation.main(list(step.arguments)):
                console.print(f"{step.name}: not whole yet; the same command goes on")
                return code
            keep(step, Path(settings.work), Path(settings.out))
            took = (time.monotonic() - begun) / 60
            said = f"{step.name}: {took:.1f} minutes, {guess[step.name]:.1f} estimated"
            console.print(said, highlight=False)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], argument_default=argparse.SUPPRESS
    )
    add_flags(parser, Settings)
    flags = vars(parser.parse_args(argv))
    try:
        settings = from_flags(Settings, flags, TwinError, lists=LISTS)
        return measure(settings, Console(stderr=True))
    except (TwinError, BundledModelError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
