"""What an installed Raven brings along, and that it is found wherever Python is started."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

pytestmark = pytest.mark.e2e


PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def clone(folder: Path) -> Path:
    """The sources in `folder`, for a build that touches nothing here."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder)
    for name in ("raven", "sql"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_from_the_folder_that_holds_the_clone_raven_is_raven(tmp_path):
    source = clone(tmp_path / "raven")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    subprocess.run([*PIP, "--python", python, "install", "--no-deps", "--editable", source], check=True)
    told = subprocess.run(
        [python, "-c", "import raven; print(raven.__file__)"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == str(source / "raven" / "__init__.py")
    assert (python.parent / "raven_timebar").exists()


def test_the_script_of_the_tables_is_installed(tmp_path):
    source = clone(tmp_path / "source")
    subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {"raven/py.typed", "raven/rpc/pb/control_pb2.py", "raven/rpc/pb/control_pb2.pyi"} <= packed
    assert not [name for name in packed if not name.startswith(("raven/", "raven_market_data-"))]
    # or pip would first remove the Raven that runs this test
    apart = ["--ignore-installed", "--no-deps", "--prefix", tmp_path / "prefix"]
    subprocess.run([*PIP, "install", *apart, wheel], check=True)
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
