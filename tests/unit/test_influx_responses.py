"""What an answer of InfluxDB, or of what stands before it, means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from raven.sinks.influx.responses import Action, Answer, classify

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
