"""`raven deadletters --resend` against a real InfluxDB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from raven.sinks.dead_letters import FOLDER, DeadLetters
from raven.sinks.encode import encode_trades
from raven.sinks.store import Refusal, TradeFlush
from tests.databases.influx_stores import held, settings_of
from tests.servers.influx import Bucket
from tests.unit.store_compliance import SPOT, some_trades


def run(where: Path, bucket: Bucket, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = {"URL": bucket.url, "TOKEN": bucket.token, "ORG": bucket.org, "BUCKET": bucket.name}
    named = {f"RAVEN__INFLUX__{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "raven.cli.raven", "deadletters", *arguments]
    return subprocess.run(command, cwd=where, env={**os.environ, **named}, capture_output=True, text=True, check=False)


def test_what_was_mended_is_stored_and_the_rest_keeps_the_new_reason(bucket: Bucket, tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "data" / "tick_persistence-50091" / FOLDER)
    good, bad = some_trades("BTCUSDT", 0, 20), some_trades("A\\", 20, 2)
    rows = encode_trades(TradeFlush([(SPOT, good), (SPOT, bad)]))
    letters.add("influx", "trades", rows, [Refusal(row, "was full") for row in range(rows.height)])
    again = run(tmp_path, bucket, "--resend")
    assert again.returncode == 1, again.stderr
    assert again.stdout == "20 rows stored, 2 refused again and kept\n"
    assert held(settings_of(bucket)).get_column("trade_id").sort().to_list() == list(range(20))
    (group,) = json.loads(run(tmp_path, bucket, "--json").stdout)
    assert group["rows"] == 2
    assert "backslash" in group["reason"]
    assert group["example"]["symbol"] == "A\\"

    letters.add("influx", "trades", rows, [Refusal(5, "was full")])
    wrong = bucket.token
    bucket.token = "wrong"
    refused = run(tmp_path, bucket, "--resend")
    bucket.token = wrong
    assert refused.returncode == 1
    assert "influx.token" in refused.stderr
    assert sum(one.rows.height for one in letters.read()) == 3
