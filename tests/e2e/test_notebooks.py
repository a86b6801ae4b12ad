"""The notebook runs in a kernel of this Python, on a recording of its own and on a real one, and shows its bars."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import polars as pl
import pytest
from nbclient import NotebookClient

import raven
from raven.sources.importing import import_files
from raven.sources.simulated import GeneratedMarket
from tests.e2e.conftest import ARCHIVE, TIBS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "replay.ipynb"
FACTS = """
import json

def drawn(chart):
    return [len(rows) for rows in chart.to_dict()["datasets"].values()]

print(json.dumps({
    "recording": str(recording), "symbol": symbol, "size": size,
    "every": every,
    "bars": {"time": times.height, "tib": tibs.height, "volume": volumes.height},
    "drawn": {"time": drawn(time_chart), "tib": drawn(theta_chart), "volume": drawn(volume_chart)},
}))
"""


def execute(folder: Path, **environment: str) -> tuple[nbformat.NotebookNode, dict[str, Any]]:
    """The notebook with its outputs, every cell run without an error, and what its variables held at the end."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(FACTS))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAVEN_")}
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute(env={**inherited, "IPYTHONDIR": str(folder / "ipython"), "TMPDIR": str(folder), **environment})
    facts = notebook.cells.pop()
    return notebook, json.loads(facts.outputs[0].text)


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert all(output.output_type in ("stream", "execute_result") for output in outputs)
    assert all(output.name == "stdout" for output in outputs if output.output_type == "stream")
    return [output.text for output in outputs if output.output_type == "stream"]


def pictures(notebook: nbformat.NotebookNode) -> list[str]:
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return [entry["image/svg+xml"] for entry in data if "image/svg+xml" in entry]


def assert_right(notebook: nbformat.NotebookNode, facts: dict[str, Any], trades: pl.DataFrame) -> None:
    """Its bars are those of `trades`, the open ones too, and each chart draws one mark a bar."""
    assert facts["bars"] == {
        "time": raven.time_bars(trades, facts["every"], partial=True).height,
        "tib": raven.tick_imbalance_bars(trades, partial=True).height,
        "volume": raven.volume_bars(trades, facts["size"], partial=True).height,
    }
    assert facts["drawn"] == {name: [count] for name, count in facts["bars"].items()}
    candles, volumes, theta = pictures(notebook)
    for picture, name in ((candles, "time"), (volumes, "volume")):
        # a body, and a column of volume
        assert picture.count('aria-roledescription="bar"') == 2 * facts["bars"][name]
    assert theta.count('aria-roledescription="circle"') == facts["bars"]["tib"]


def test_without_a_recording_it_makes_one_and_says_so(tmp_path: Path) -> None:
    notebook, facts = execute(tmp_path)
    assert_right(notebook, facts, raven.read_trades(facts["recording"]))
    assert facts["every"] == "5m"
    assert all(count > 10 for count in facts["bars"].values())
    assert printed(notebook)[0] == "SIMULATED, not a real market\n"
    committed = nbformat.read(NOTEBOOK, as_version=4)
    assert printed(notebook) == printed(committed), "render it anew; docs/decisions.md says how"
    assert len(pictures(committed)) == 3
    assert NOTEBOOK.stat().st_size < 300_000, "it is read on forges and kept in every clone"


def test_a_recording_of_a_real_market(tmp_path: Path, shared_data: Path) -> None:
    journal = tmp_path / "journal"
    import_files([shared_data / ARCHIVE], into=journal, data=tmp_path)
    notebook, facts = execute(tmp_path, RAVEN_RECORDING=str(journal))
    assert (facts["recording"], facts["symbol"], facts["bars"]["tib"]) == (str(journal), "BTCUSDT", TIBS + 1)
    assert_right(notebook, facts, raven.read_trades(shared_data / ARCHIVE))
    assert printed(notebook)[0] == "your recording\n"


def test_a_recording_of_two_minutes(tmp_path: Path) -> None:
    start, market = (
        datetime(2026, 1, 5, 0, 1, 30, tzinfo=UTC),
        GeneratedMarket(["BTCUSDT"], seed=1, trades_per_second=2),
    )
    first_id, stop_id = (
        market.id_at("BTCUSDT", int((start + timedelta(seconds=after)).timestamp()) * 1_000_000) for after in (0, 120)
    )
    trades = market.trades("BTCUSDT", first_id, stop_id).select(
        "trade_id",
        "price",
        "quantity",
        symbol=pl.lit("BTCUSDT"),
        ts_event=pl.from_epoch("time_us", time_unit="us").dt.replace_time_zone("UTC"),
        side=pl.when("is_sell").then(-1).otherwise(1).cast(pl.Int8),
    )
    trades.write_parquet(tmp_path / "BTCUSDT.parquet")
    journal = tmp_path / "journal"
    import_files([tmp_path / "BTCUSDT.parquet"], into=journal, data=tmp_path, venue="BINANCE_SPOT")
    notebook, facts = execute(tmp_path, RAVEN_RECORDING=str(journal))
    assert facts["every"] == "10s"
    assert_right(notebook, facts, trades)
