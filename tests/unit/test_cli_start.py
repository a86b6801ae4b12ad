"""ravenctl only asks and prints: it starts fast because it loads none of the libraries that move data."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from raven.cli import entry
from raven.control.plan import SERVICES

HEAVY = ["polars", "pyarrow", "numpy", "aiohttp", "deltalake", "websockets"]


def test_ravenctl_loads_no_data_library() -> None:
    code = f"import raven.cli.ravenctl, sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


INTERRUPTED = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "raven.cli.output":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from raven.cli import entry
entry.ravenctl()
"""


def test_ctrl_c_while_it_loads_leaves_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_every_console_script_is_such_an_entry() -> None:
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {name: f"raven.cli.entry:{name}" for name in (*SERVICES, "ravenctl", "raven")}
    assert all(callable(getattr(entry, name)) for name in scripts)
