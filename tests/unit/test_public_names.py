"""`import raven` as people and tools look at it: its names, their help, and what a type checker makes of them."""

from __future__ import annotations

import pydoc
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import raven
from raven import api, errors

PROJECT = Path(__file__).parents[2]
FUNCTIONS = {
    "read_trades", "iter_trades", "replay", "live", "scan_trades", "scan_bars", "stored",
    "time_bars", "tick_imbalance_bars", "tick_bars", "volume_bars", "dollar_bars",
}  # fmt: skip
CLASSES = {"TimeBars", "TickImbalanceBars", "TickBars", "VolumeBars", "DollarBars"}
WARNINGS = {"DroppedRowsWarning", "NotStoredWarning", "RecordingWarning"}
ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}


def python(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_these_are_the_names_and_there_are_no_others() -> None:
    assert set(raven.__all__) == {"__version__"} | FUNCTIONS | CLASSES | WARNINGS | ERRORS
    assert raven.__all__ == sorted(raven.__all__)
    assert dir(raven) == raven.__all__
    assert set(api.__all__) == FUNCTIONS | CLASSES | WARNINGS
    for name in api.__all__:
        assert getattr(raven, name) is getattr(api, name)
    for name in ERRORS:
        assert getattr(raven, name) is getattr(errors, name)
        assert issubclass(getattr(raven, name), raven.RavenError)
    for name in WARNINGS:
        assert issubclass(getattr(raven, name), Warning)
    with pytest.raises(AttributeError, match="no attribute 'klines'"):
        _ = raven.klines  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'JournalReader'"):
        _ = raven.JournalReader  # type: ignore[attr-defined] - a name that raven.api uses


def test_all_names_come_with_a_star_and_help_shows_each() -> None:
    assert set(python("from raven import *; print(*globals())").split()) > set(raven.__all__)
    shown = pydoc.render_doc(raven, renderer=pydoc.plaintext)
    assert all(f"\n    {name}(" in shown for name in FUNCTIONS - {"live"})
    assert "async live(" in shown
    assert all(f"class {name}(" in shown for name in CLASSES | WARNINGS | ERRORS)
    assert "VERSION" in shown
    assert not any(name in shown for name in ("TYPE_CHECKING", "import_module", "annotations ="))


def test_the_version_is_that_of_the_project_and_no_file_is_read_for_it() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert raven.__version__ == project["version"]


def test_the_import_is_cheap_and_what_is_loaded_waits_for_its_first_use() -> None:
    loaded = python("import sys, raven; raven.__version__, raven.InputError, dir(raven); print(*sys.modules)").split()
    assert {name for name in loaded if name.startswith("raven")} == {"raven", "raven.errors", "raven.version"}
    assert not {"polars", "pyarrow", "grpc", "importlib.metadata", "asyncio"} & set(loaded)
    assert "polars" in python("import sys, raven; raven.time_bars; print(*sys.modules)").split()


def test_a_type_checker_knows_the_names_and_refuses_others(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "from collections.abc import Iterator\n"
        "import polars as pl\n"
        "import raven\n"
        "bars: pl.DataFrame = raven.time_bars(raven.read_trades('x.zip'), '5m')\n"
        "rows: pl.LazyFrame = raven.scan_trades(symbol='BTCUSDT', ordered=False)\n"
        "batches: Iterator[pl.DataFrame] = raven.replay('journal')\n"
        "error: type[Exception] = raven.InputError\n"
        "version: str = raven.__version__\n"
        "raven.nonsense\n"
        "raven.time_bars(1.5)\n"
        "raven.import_module\n"
    )
    mypy = [sys.executable, "-m", "mypy", "--no-error-summary", str(snippet)]  # with the settings, and cache, of `make`
    done = subprocess.run(mypy, capture_output=True, text=True, cwd=PROJECT, check=False)
    found = [line.partition("snippet.py:")[2] for line in done.stdout.splitlines() if "snippet.py:" in line]
    assert [(line.partition(":")[0], line.rpartition("[")[2]) for line in found] == [
        ("9", "attr-defined]"), ("10", "arg-type]"), ("11", "attr-defined]"),
    ], done.stdout + done.stderr  # fmt: skip
    assert 'has no attribute "nonsense"' in found[0]
