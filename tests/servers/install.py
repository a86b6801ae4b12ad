"""Setting up what the servers run from: folders of Debian packages, or containers."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

COMPOSE = Path(__file__).with_name("compose.yaml")


@dataclass(frozen=True)
class Packages:
    """A Debian release and what is taken from it, into a folder of its own."""

    release: str
    names: tuple[str, ...]

    @property
    def root(self) -> Path:
        return _cache_folder() / self.release

    @property
    def stamp(self) -> Path:
        """Written last, with what is inside: without it or with another content the folder is made anew."""
        return _cache_folder() / f"{self.release}.complete"

    def is_complete(self) -> bool:
        return self.stamp.exists() and self.stamp.read_text() == repr(self)


# The first Debian release with TimescaleDB, and the last with InfluxDB.
POSTGRES = Packages("trixie", ("postgresql-17", "postgresql-17-timescaledb"))
INFLUX = Packages("bookworm", ("influxdb", "nginx-light"))


@cache
def has_debian() -> bool:
    """Whether servers can be made from Debian's packages here: root on Debian, and allowed to make namespaces."""
    release = Path("/etc/os-release")
    if os.geteuid() != 0 or not release.exists() or "ID=debian" not in release.read_text().splitlines():
        return False
    apart = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(apart, capture_output=True, check=False).returncode == 0


@cache
def has_docker() -> bool:
    """Whether a container engine answers."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "ls"], capture_output=True, check=False).returncode == 0


def install() -> str:
    """Set up what is missing, once for all test runs on this machine; says what was done. RuntimeError where it fails."""
    if os.environ.get("RAVEN_TEST_POSTGRES_URL") and os.environ.get("RAVEN_TEST_INFLUX_URL"):
        return "test servers: those of the environment"
    if has_debian():
        with _alone():
            missing = [packages for packages in (POSTGRES, INFLUX) if not packages.is_complete()]
            if missing:
                _set_up(missing)
        return f"test servers: in {_cache_folder()}"
    if has_docker():
        subprocess.run(["docker", "compose", "-f", str(COMPOSE), "up", "--detach", "--wait"], check=True)
        return "test servers: running in containers"
    return (
        "test servers: none; run as root on Debian (allowed to mount), or with docker, or set RAVEN_TEST_POSTGRES_URL and "
        "RAVEN_TEST_INFLUX_URL, _TOKEN, _ORG, _BUCKET (their tests are skipped, and fail where CI=true)"
    )


def _cache_folder() -> Path:
    return Path(os.environ.get("RAVEN_TEST_SERVERS", "~/.cache/raven-test-servers")).expanduser().absolute()


@contextmanager
def _alone() -> Iterator[None]:
    """One installation at a time: test runs beside each other wait for it."""
    _cache_folder().mkdir(parents=True, exist_ok=True)
    with (_cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _set_up(missing: list[Packages]) -> None:
    if shutil.which("debootstrap") is None:
        _run(["apt-get", "update", "-qq"])
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "debootstrap"])
    mirror = _debian_mirror()
    with ThreadPoolExecutor(len(missing)) as pool:
        list(pool.map(lambda packages: _debootstrap(packages, mirror), missing))


def _debian_mirror() -> str:
    """Where this machine's own packages come from."""
    targets = _run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages"])
    for line in targets.splitlines():
        uri, _, label = line.partition(" ")
        if label == "Debian":
            return uri
    raise RuntimeError("apt knows no Debian mirror: see the sources in /etc/apt")


def _debootstrap(packages: Packages, mirror: str) -> None:
    print(f"test servers: {', '.join(packages.names)} of Debian {packages.release} into {packages.root}", flush=True)
    packages.stamp.unlink(missing_ok=True)
    shutil.rmtree(packages.root, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages.names)}"]
    # Namespaces of its own: what it mounts and starts is gone with it, also when it is interrupted.
    apart = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"]
    _run([*apart, *command, packages.release, str(packages.root), mirror])
    for package in (packages.root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    packages.stamp.write_text(repr(packages))


def _run(command: list[str]) -> str:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise RuntimeError(f"{' '.join(command)} failed:\n{last}")
    return done.stdout
