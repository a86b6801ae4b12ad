"""ravenctl only asks and prints: it starts fast because it loads none of the libraries that move data."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ["polars", "pyarrow", "numpy", "aiohttp", "deltalake", "websockets"]


def test_ravenctl_loads_no_data_library() -> None:
    code = f"import raven.cli.ravenctl, sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
