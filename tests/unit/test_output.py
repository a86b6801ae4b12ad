"""What machines get from `--json`, and how numbers are shown to people."""

from __future__ import annotations

import pytest
from rich.console import Console

from raven.cli import output
from raven.cli.tables import Layout
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


def test_one_of_them_is_not_many() -> None:
    assert [output.counted(number, "row") for number in (0, 1, 2, 1234)] == ["0 rows", "1 row", "2 rows", "1,234 rows"]


def test_what_goes_into_a_pipe_is_a_line_a_row_without_colours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "console", Console(highlight=False, width=output.PIPED_WIDTH))
    reason = " ".join(f"word{number}" for number in range(60))
    output.table(Layout("Stores", ("store", "rows>", "why"), wraps=("why",)), [["[red]delta[/]", "7", reason]])
    output.say(f"[red]delta[/]: {reason}")
    assert capsys.readouterr().out.splitlines() == [
        "Stores", "store  rows  why", f"delta     7  {reason}", f"delta: {reason}",
    ]  # fmt: skip
