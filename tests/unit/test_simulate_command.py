"""`raven simulate` as it is typed: what is wrong is said in one line, with exit code 1."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from raven.cli import raven
from raven.errors import InputError
from raven.sources.simulated.names import NOT_TRADING, symbol_names


def complaint(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command says on standard error, once it has ended with 1."""
    monkeypatch.setattr(sys, "argv", ["raven", "simulate", *arguments])
    with pytest.raises(SystemExit) as ended:
        raven.main()
    assert ended.value.code == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("raven: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--venue", "mars"], "mars"),
        (["--fault", "boom@3"], "boom"),
        (["--fault", "drop"], "drop@12.5"),
        (["--fault", "halt@3:NOSUCHUSDT"], "NOSUCHUSDT"),
        (["--faults", "0"], "above zero"),
        (["--faults", "3", "--fault-kinds", "drop,halt"], "halt"),
        (["--fault-kinds", "drop"], "--faults"),
        (["--symbols", "0"], "0 symbols"),
        (["--symbols", "100000"], "100000 symbols"),
        (["--symbol", "btcusdt"], "btcusdt"),
        (["--rate", "0"], "trades a second"),
        (["--speed", "-1"], "--speed"),
        (["--weight-limit", "0"], "weight"),
        (["--port", "99999"], "99999"),
        (["--play", "no-such-file.zip"], "no-such-file.zip"),
        (["--play", "x", "--venue", "both"], "one venue"),
    ],
)
def test_wrong_uses(monkeypatch, capsys, arguments: list[str], said: str):
    assert said in complaint(monkeypatch, capsys, *arguments)


def test_a_file_that_is_no_recording(monkeypatch, capsys, tmp_path: Path):
    (tmp_path / "damaged.zip").write_bytes(b"PK\x03\x04 and then nothing")
    assert "damaged.zip" in complaint(monkeypatch, capsys, "--play", str(tmp_path / "damaged.zip"))


def test_a_taken_port(monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert port in complaint(monkeypatch, capsys, "--port", port)


def test_names_of_many_symbols():
    names = symbol_names(1_000)
    assert len(set(names)) == 1_000
    assert names[:3] == ("BTCUSDT", "ETHUSDT", "BNBUSDT")
    assert [name for name in names if not name.isascii()] == ["币安人生USDT"]
    assert NOT_TRADING in names
    with pytest.raises(InputError):
        symbol_names(0)
