"""What an installed Raven brings along: the script that makes the tables of bars."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

pytestmark = pytest.mark.e2e


def test_the_script_of_the_tables_is_installed(tmp_path):
    source = tmp_path / "source"  # building leaves folders beside the sources
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    for name in ("raven", "sql"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    # or pip would first remove the Raven that runs this test
    apart = ["--ignore-installed", "--no-deps", "--prefix", tmp_path / "prefix"]
    subprocess.run([*pip, "install", *apart, wheel], check=True)
    home = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "prefix"), "platbase": ""})
    code = "import raven; from raven.sinks.timescale.schema import script; print(raven.__file__); print(script())"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": home, "PATH": ""}, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    package, script = map(Path, told.stdout.splitlines())
    assert package == Path(home) / "raven" / "__init__.py"
    assert script.is_relative_to(tmp_path / "prefix")
    assert version("raven-market-data")
    assert script.read_bytes() == (PROJECT / "sql" / "create_bars_table.sql").read_bytes()
