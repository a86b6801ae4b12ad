"""What machines get from `--json`, and how numbers are shown to people."""

from __future__ import annotations

import pytest
from rich.console import Console

from raven.cli import output
from raven.rpc.pb import control_pb2, market_data_pb2


def test_messages_become_plain_data() -> None:
    message = control_pb2.StatusResponse(
        service="raven_tibs", pid=2**40, healthy=True, counters={"rows": 3}, problems=["none"],
        subscriptions=[control_pb2.Subscription(symbol="币安人生USDT", state=control_pb2.SYMBOL_STATE_STREAMING)],
        links=[control_pb2.Link(cursor=market_data_pb2.Cursor(journal_id="j", sequence=7))],
    )  # fmt: skip
    plain = output.as_dict(message)
    assert (plain["pid"], plain["counters"], plain["problems"], plain["started_us"]) == (
        2**40,
        {"rows": 3},
        ["none"],
        0,
    )
    assert plain["subscriptions"][0]["symbol"] == "币安人生USDT"
    assert plain["subscriptions"][0]["state"] == "streaming"
    assert plain["links"][0]["cursor"] == {"journal_id": "j", "sequence": 7}


def test_every_state_has_a_word() -> None:
    for number in control_pb2.SymbolState.values():
        assert output.state_text(number)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0123, "12 ms"), (5.25, "5.2 s"), (130, "2 min 10 s"), (7384, "2 h 03 min")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert output.duration(seconds) == shown


@pytest.mark.parametrize("width", [40, 80, 240])
def test_no_table_cuts_off_what_it_shows(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "console", Console(highlight=False, width=width))
    reason = " ".join(f"word{number}" for number in range(60))
    rows = [["tick_persistence", "influx/trades", "12,345", "", reason], ["bar_persistence", "timescale", "7", "", ""]]
    output.table("Stores", ["service", "store", "backlog rows>", "dead>", "reason"], rows)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert all(cell in " ".join(shown.split()) for row in rows for cell in row)
    assert max(map(len, shown.splitlines())) <= width


def test_a_table_that_is_too_wide_leaves_out_empty_columns_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "console", Console(highlight=False, width=20))
    output.table("Stores", ["service", "missing ids>", "rows>"], [["bars", "", "7"]])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["Stores"], ["service", "rows"], ["bars", "7"],
    ]  # fmt: skip
