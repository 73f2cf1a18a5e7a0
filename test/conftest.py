"""What all tests share: the tiny model, and the servers.

A test of a server asks for the fixture `server`. Its module says with a mark which one:

    pytestmark = pytest.mark.server("--schedule-conservativeness", "0.0", pool=800, NAME="value")

These are the arguments of `Server`; plain `pytest.mark.server` is a server without flags. Modules
with the same arguments share one, unless `private="some name"` keeps theirs apart. A single test
that needs another server than its module has the mark to itself and asks for `own_server`.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from asking import check_idle
from jobs import Jobs, ServerJob, in_order, job_of, server_job_of
from server import Server

# Models this small gain nothing from more threads, and lose much while servers start beside them.
# It is read when torch is imported, which is later; processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

# What a shell starts in the background ignores it, and so does all that it starts in turn; tests
# interrupt what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

JOBS = pytest.StashKey[Jobs]()
TEST = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def tiny_path() -> Path:
    return TEST / "models" / "tiny-multiverse"


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_path)


@pytest.fixture(scope="session")
def tiny_tags(tiny_tokenizer: Any) -> Any:
    from sglang_multiverse.structure import resolve_tags

    return resolve_tags(tiny_tokenizer)


@pytest.fixture(scope="session")
def tiny_model(tiny_path: Path) -> Any:
    """In fp32, on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_path, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Where there is one: Playwright's driver with the system's Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        # Without its sandbox: CI runs as root, where Chromium has none.
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


# --- servers and other jobs --------------------------------------------------


@pytest.fixture(scope="session")
def jobs(pytestconfig: pytest.Config) -> Jobs:
    return pytestconfig.stash[JOBS]


@pytest.fixture(scope="module")
def server(jobs: Jobs, request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server of the module's mark, with an empty cache; it must be idle when all is done."""
    yield from _used(jobs, server_job_of(request.node))


@pytest.fixture
def own_server(jobs: Jobs, request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server of the test's own mark."""
    yield from _used(jobs, server_job_of(request.node))


@pytest.fixture
def ahead(jobs: Jobs, request: pytest.FixtureRequest) -> Any:
    """What the job of the test's `ahead` mark returned."""
    return jobs.get(request.node.get_closest_marker("ahead").kwargs["job"])


def _used(jobs: Jobs, job: ServerJob) -> Iterator[Server]:
    server: Server = jobs.get(job)
    server.new_log()  # is not this user's
    yield server
    if jobs.peek(job) is not server:
        return  # its last user is done, and a module's fixture ends later when others follow in it
    if server.alive or not job.private:
        try:
            check_idle(server)
        except BaseException:
            server.stop()  # what it lost would be missing to the next user, too
            raise


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = in_order(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    jobs = session.config.stash[JOBS] = Jobs()
    if not session.config.option.collectonly:
        jobs.begin(job for item in session.items if (job := job_of(item)) is not None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    jobs = session.config.stash.get(JOBS, None)
    if jobs is not None:
        jobs.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    job = job_of(item)
    if job is not None:
        item.config.stash[JOBS].done(job)
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A shared server that died costs the test that killed it, not those after it."""
    job = job_of(item)
    server = item.config.stash[JOBS].peek(job) if isinstance(job, ServerJob) else None
    if server is not None and not server.alive:
        server.stop()  # what is left of it
        server.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test says how its servers are; one that hangs is stopped, for the next test."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Server) and value.process is not None:
                report.sections.append((f"{name} {value.settle()}", value.tail))
    return report
