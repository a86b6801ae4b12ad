"""What an answer of InfluxDB, or of what stands before it, means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from raven.sinks.influx.responses import Action, Answer, classify
from tests.unit.influx_answers import PARTLY, RETENTION

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def of(status: int | None, body: str = "", **headers: str) -> Answer:
    return Answer(status, body.encode(), {name.replace("_", "-"): value for name, value in headers.items()})


CONFLICT = 'partial write: field type conflict: input field \\"price\\" is type integer, already float dropped=3'
OLD_1 = "partial write: points beyond retention policy dropped=2"
OLD_2 = "failure writing points to database: partial write: dropped 5 points outside retention policy dropped=5"


@pytest.mark.parametrize(
    ("answer", "action", "dropped"),
    [
        (of(204), Action.ACCEPTED, None),
        (of(200), Action.MEND, None),
        (of(301), Action.MEND, None),
        (of(400, '{"code":"invalid","message":"unable to parse"}'), Action.SPLIT, None),
        (of(400, f'{{"error":"{CONFLICT}"}}'), Action.SPLIT, 3),
        (of(400, f'{{"error":"{OLD_1}"}}'), Action.TOO_OLD, 2),
        (of(400, "Client sent an HTTP request to an HTTPS server."), Action.MEND, None),
        (of(401), Action.MEND, None),
        (of(403), Action.MEND, None),
        (of(404), Action.MEND, None),
        (of(405), Action.MEND, None),
        (of(407), Action.MEND, None),
        (of(408), Action.RETRY, None),
        (of(413, "<html>413</html>"), Action.HALVE, None),
        (of(422, f'{{"message":"{OLD_2}"}}'), Action.TOO_OLD, 5),
        (of(422, f'{{"message":"{CONFLICT}"}}'), Action.SPLIT, 3),
        (of(422, '{"message":"points outside retention policy"}'), Action.TOO_OLD, None),
        (of(422), Action.SPLIT, None),
        (of(429), Action.RETRY, None),
        (of(500), Action.RETRY, None),
        (of(500, f'{{"message":"unexpected error writing points: {CONFLICT}"}}'), Action.SPLIT, 3),
        (of(503), Action.RETRY, None),
        (of(599), Action.RETRY, None),
        (of(None, "connection refused"), Action.RETRY, None),
        (of(None, "certificate verify failed"), Action.MEND, None),
        (of(None, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), Action.MEND, None),
        (of(499), Action.MEND, None),
    ],
)
def test_an_answer_leads_to_an_action(answer: Answer, action: Action, dropped: int | None) -> None:
    verdict = classify(answer)
    assert verdict.action is action
    assert verdict.dropped == dropped
    assert bool(verdict.reason) == (action is not Action.ACCEPTED)
    if action is Action.MEND:
        assert "influx" in verdict.hint or "proxy" in verdict.hint


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("7", 7.0), ("0", 0.0), ("1.5", 1.5), ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0), ("-3", 0.0),
     ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0), ("soon", 0.0), ("", 0.0), ("nan", 0.0), ("inf", 0.0)],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(given: str, seconds: float) -> None:
    assert classify(of(429, Retry_After=given), now=NOW).retry_after_s == seconds


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (of(500, '{"code":"internal error","message":"engine: no space\\n left"}'), "engine: no space left (HTTP 500)"),
        (of(500, '{"error":"timeout"}'), "timeout (HTTP 500)"),
        (of(502, "<html>Bad Gateway</html>"), "Bad Gateway (HTTP 502)"),
        (of(500, "", X_Influxdb_Error="its words"), "its words (HTTP 500)"),
        (of(500, "plain words"), "plain words (HTTP 500)"),
        (of(599), "an answer without a reason (HTTP 599)"),
        (of(500, "[1]"), "[1] (HTTP 500)"),
    ],
)
def test_the_reason_is_the_servers_own_word(answer: Answer, reason: str) -> None:
    assert classify(answer).reason == reason


def test_a_full_disk_says_what_to_do() -> None:
    verdict = classify(of(500, '{"error":"write /data/wal: no space left on device"}'))
    assert verdict.action is Action.RETRY
    assert "free some space" in verdict.hint


def test_a_long_reason_is_cut() -> None:
    assert len(classify(of(400, "x" * 100_000)).reason) < 600


@pytest.mark.parametrize("version", list(RETENTION))
@pytest.mark.parametrize("dropped", [1, 10, 1_000, 123_456])
def test_the_count_is_read_however_long_the_message_is(version: str, dropped: int) -> None:
    verdict = classify(RETENTION[version](dropped))
    assert (verdict.action, verdict.dropped) == (Action.TOO_OLD, dropped)
    assert len(verdict.reason) < 600


def test_the_message_of_2_7_12_is_longer_than_what_is_shown_of_it() -> None:
    assert len(RETENTION["2.7.12"](1_000).body) > 560


@pytest.mark.parametrize("symbol", ["dropped=7", "dropped=7 for x", "X,dropped=7"])
def test_a_symbol_is_not_taken_for_the_count(symbol: str) -> None:
    body = RETENTION["2.7.12"](42).body.replace(b"BTCUSDT", symbol.encode())
    assert classify(Answer(422, body)).dropped == 42


def test_the_name_of_a_retention_policy_alone_does_not_make_rows_too_old() -> None:
    said = 'field type conflict: input field \\"price\\" on measurement \\"trades\\" is type float, already exists as type integer'
    whole = f'{{"message":"{PARTLY}{said} dropped=3 for database: 91040e1bf6671dfd for retention policy: autogen"}}'
    verdict = classify(of(422, whole))
    assert (verdict.action, verdict.dropped) == (Action.SPLIT, 3)
