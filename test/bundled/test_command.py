"""The command prints the path and nothing else to stdout, so that a shell can use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglang_multiverse.bundled import BundledModelError, Manifest, __main__, cache


@pytest.mark.usefixtures("_fake")
def test_the_path_goes_to_stdout_and_the_rest_to_stderr(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cache, "PACKAGE", tiny_bundle)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert __main__.main([]) == 0
    said = capsys.readouterr()
    path = Path(said.out.removesuffix("\n"))
    assert path.parent == tmp_path / "sglang-multiverse" / "models" and cache.is_whole(path)
    assert "making the bundled model, once: merging" in said.err

    assert __main__.main([]) == 0
    again = capsys.readouterr()
    assert (again.out, again.err) == (said.out, "")


@pytest.mark.usefixtures("_fake")
def test_another_bundle_is_another_model(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert __main__.main(["--bundle", str(tiny_bundle)]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.name.startswith(Manifest.read(tiny_bundle).name) and cache.is_whole(path)
    assert __main__.main(["--bundle", str(tmp_path)]) == 2
    assert "manifest.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(BundledModelError("no base"), 2, "error: no base\n"), (KeyboardInterrupt(), 130, "")],
)
def test_what_ends_it(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object, **__: object) -> Path:
        raise error

    monkeypatch.setattr(__main__, "model_path", fails)
    assert __main__.main([]) == code
    assert capsys.readouterr() == ("", said)
