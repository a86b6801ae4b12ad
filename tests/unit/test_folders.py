"""The folder of a service goes along when its port is changed, and only where it is plain which one that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from raven.batches.instrument import Instrument
from raven.control.folders import WANTED, consumer_name, folder_of, left_behind, lock, take_along
from raven.control.wanted import USER, WantedFile
from raven.errors import RavenError

BTC = Instrument("BINANCE_SPOT", "BTCUSDT")


def used(data: Path, port: int, *, wants: bool = True, recorded: bool = False) -> Path:
    """A folder of raven_tibs as an earlier run left it."""
    folder = folder_of(data, "raven_tibs", port)
    lock(folder).release()
    if wants:
        wanted = WantedFile(folder / WANTED)
        wanted.add(BTC, USER)
        wanted.save()
    if recorded:
        (folder / "00000000000000000001.arrows").touch()
    return folder


def test_a_changed_port_takes_wishes_recordings_and_its_name_along(tmp_path: Path) -> None:
    old, new = used(tmp_path, 50052, recorded=True), folder_of(tmp_path, "raven_tibs", 60052)
    assert take_along(new) == old
    assert not old.exists()
    assert list(WantedFile(new / WANTED).entries) == [BTC]
    assert (new / "00000000000000000001.arrows").exists()
    assert consumer_name(new) == "raven_tibs-50052", "upstreams know its position and wishes by that"
    # and once more
    newest = folder_of(tmp_path, "raven_tibs", 60053)
    assert take_along(newest) == new
    assert consumer_name(newest) == "raven_tibs-50052"
    # another one at the first port is another consumer, also after a restart
    other = used(tmp_path, 50052, wants=False)
    name = consumer_name(other)
    assert name.startswith("raven_tibs-50052-")
    assert consumer_name(other) == name


@pytest.mark.parametrize("recorded", [True, False])
def test_what_holds_something_is_taken_and_nothing_else(tmp_path: Path, recorded: bool) -> None:
    used(tmp_path, 50052, wants=False, recorded=recorded)
    (tmp_path / "raven_tibs-old").mkdir()
    (tmp_path / "raven_timebar-50051").mkdir()
    assert (take_along(folder_of(tmp_path, "raven_tibs", 60052)) is not None) is recorded


def test_what_runs_is_left_alone(tmp_path: Path) -> None:
    old, new = used(tmp_path, 50052), folder_of(tmp_path, "raven_tibs", 60052)
    held = lock(old)
    assert left_behind(new) == []
    assert take_along(new) is None
    held.release()
    assert left_behind(new) == [old]


def test_a_service_that_has_a_folder_keeps_it_and_another_is_told(tmp_path: Path) -> None:
    old, own = used(tmp_path, 50052), used(tmp_path, 60052, wants=False)
    assert take_along(own) is None
    assert left_behind(own) == [old]
    assert left_behind(old) == [], "nothing is in the other"


def test_of_several_none_is_taken(tmp_path: Path) -> None:
    both = [used(tmp_path, 50052), used(tmp_path, 50053)]
    new = folder_of(tmp_path, "raven_tibs", 60052)
    assert take_along(new) is None
    assert left_behind(new) == both


def test_a_folder_in_use_and_one_that_cannot_be_written(tmp_path: Path) -> None:
    held = lock(tmp_path / "raven_tibs-50052")
    with pytest.raises(RavenError, match=r"another process holds .*already running"):
        lock(tmp_path / "raven_tibs-50052")
    held.release()
    (tmp_path / "file").touch()
    with pytest.raises(RavenError, match=r"cannot be written: .*writable"):
        lock(tmp_path / "file" / "raven_tibs-50052")
