"""Commands that only ask or print start fast: they load none of the libraries that move data."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ["polars", "pyarrow", "numpy", "aiohttp", "deltalake", "websockets"]


@pytest.mark.parametrize("module", ["raven.cli.ravenctl", "raven.cli.raven"])
def test_no_data_library_is_loaded(module: str) -> None:
    code = f"import {module}, sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
