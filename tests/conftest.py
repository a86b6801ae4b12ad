"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# how long an example takes says how busy the machine is, not whether the code is right
settings.register_profile("raven", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("raven")

pytest_plugins = ["tests.servers.fixtures"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded market data beside the project; missing it is a failure in CI, a skip elsewhere."""
    return _shared("data", "RAVEN_TEST_DATA", "recorded market data")


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of small files that are hard to read right, beside the project; likewise."""
    return _shared("cases", "RAVEN_TEST_CASES", "cases")


@pytest.fixture
def write(tmp_path):
    """Write a file of that name and return its path."""

    def write_file(name, data):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return write_file


def _shared(name: str, variable: str, what: str) -> Path:
    default = Path(__file__).resolve().parents[2] / "shared" / name
    folder = Path(os.environ.get(variable, default))
    if not (folder / "README.md").exists():
        message = f"{what} not found in {folder} (set {variable})"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder
