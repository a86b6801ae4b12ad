"""What `raven up` makes of its arguments, and what its screen shows of many symbols and of several venues."""

from __future__ import annotations

import asyncio
import shlex
import socket
from pathlib import Path

import pytest

from raven.batches.instrument import Instrument
from raven.cli import output
from raven.cli.child_log import ChildLog
from raven.cli.collecting import most_downstream
from raven.cli.dashboard import Dashboard, answer_of, service_state
from raven.cli.exchange import choose_exchange, simulated
from raven.cli.instruments import DEFAULTS, left_out, parse_instruments, remembered, spelt
from raven.cli.supervisor import Child
from raven.cli.up import Plan, children, require_free_ports, services_of, stage_of
from raven.cli.watch import Watch
from raven.control.plan import SERVICES
from raven.control.wanted import USER, WantedFile
from raven.errors import InputError
from raven.rpc.access import Access
from raven.rpc.pb import control_pb2
from raven.settings import ServerSettings, Settings, TimebarSettings

SPOT, FUTURES = "BINANCE_SPOT", "BINANCE_FUTURES"
STREAMING = control_pb2.SYMBOL_STATE_STREAMING


def plan(*services: str, instruments: list[Instrument] | None = None) -> Plan:
    return Plan(
        services=services_of(dict.fromkeys(services)), instruments=instruments or [], collect=True, simulate=None,
        simulated_port=9443, rate=20.0, logs=False,
    )  # fmt: skip


class TestInstruments:
    @pytest.mark.parametrize(
        ("entries", "venue", "found"),
        [
            (["btcusdt,ethusdt"], "", [(SPOT, "BTCUSDT"), (SPOT, "ETHUSDT")]),
            (["BTCUSDT", "futures:btcusdt"], "", [(SPOT, "BTCUSDT"), (FUTURES, "BTCUSDT")]),
            (["BTCUSDT, spot:BTCUSDT"], "futures", [(FUTURES, "BTCUSDT"), (SPOT, "BTCUSDT")]),
            (["*USDT", "binance_futures:*"], "", [(SPOT, "*USDT"), (FUTURES, "*")]),
            (["BTCUSDT", "BTCUSDT"], "", [(SPOT, "BTCUSDT")]),
            (["币安人生USDT"], "", [(SPOT, "币安人生USDT")]),
        ],
    )
    def test_what_is_asked_for(self, entries: list[str], venue: str, found: list[tuple[str, str]]) -> None:
        assert parse_instruments(entries, venue) == found

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ("BTC USDT", "is not a symbol"), ("BTCUSDT,,ETHUSDT", "is not a symbol"), ("", "is not a symbol"),
            ("BTC/USDT", "is not a symbol"), ("coinbase:BTCUSD", "no venue coinbase"), ("futures:", "is not a symbol"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_one(self, entry: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            parse_instruments([entry])

    def test_what_was_collected_before(self, tmp_path: Path) -> None:
        for folder in ("tick_persistence-50091", "raven_tibs-50052"):
            (tmp_path / folder).mkdir()
            wanted = WantedFile(tmp_path / folder / "wanted.json")
            wanted.add(Instrument(FUTURES, "BTCUSDT"), USER)
            wanted.save()
        assert remembered(Settings(), tmp_path, SERVICES) == [Instrument(FUTURES, "BTCUSDT")]
        assert remembered(Settings(), tmp_path, ["bar_persistence"]) == []

    def test_what_was_collected_before_and_is_left_out_now(self) -> None:
        before = [Instrument(SPOT, "BTCUSDT"), Instrument(FUTURES, "BTCUSDT"), Instrument(SPOT, "ETH*")]
        assert left_out(before, [Instrument(SPOT, "BTCUSDT")]) == before[1:]
        assert left_out(before, [Instrument(SPOT, "*")]) == [before[1]]
        assert left_out(before, before) == []

    @pytest.mark.parametrize("symbols", ["BTCUSDT,futures:BTCUSDT", "'*USDT,futures:ETH?'"])
    def test_how_they_are_spelt_for_another_run(self, symbols: str) -> None:
        assert spelt(parse_instruments(shlex.split(symbols))) == symbols


class TestPlan:
    def test_venues_are_those_of_what_is_collected_and_of_the_sources_here(self) -> None:
        both = [Instrument(SPOT, "BTCUSDT"), Instrument(FUTURES, "BTCUSDT")]
        assert plan(instruments=both).venues([]) == [SPOT, FUTURES]
        assert plan("binance_futures", instruments=both).venues([]) == [FUTURES]
        assert plan().venues([]) == [SPOT]
        assert plan().venues([Instrument(FUTURES, "BTCUSDT")]) == [FUTURES]
        assert plan("raven_tibs").venues([]) == []

    def test_the_most_downstream_services_are_asked(self) -> None:
        assert most_downstream(list(SERVICES)) == ["tick_persistence", "bar_persistence"]
        assert most_downstream(["binance_spot", "raven_tibs"]) == ["raven_tibs"]
        assert most_downstream(["binance_spot", "bar_persistence"]) == ["binance_spot", "bar_persistence"]

    def test_sources_stop_first_and_the_simulated_exchange_last(self, tmp_path: Path) -> None:
        made = children(Settings(), plan(), simulated(Settings(), 9443, ""), DEFAULTS, tmp_path)
        stages = {child.name: child.stage for child in made}
        assert stages == {
            "binance_spot": 0, "binance_futures": 0, "raven_timebar": 1, "raven_tibs": 1, "tick_persistence": 1,
            "bar_persistence": 2, "simulate": 6,
        }  # fmt: skip
        assert all(stage_of(name) > stage_of(up) for name in SERVICES for up in SERVICES[name].upstreams)

    def test_the_simulated_exchange_has_the_venues_whose_sources_run_and_the_symbols(self, tmp_path: Path) -> None:
        exchange = simulated(Settings(), 9443, "")
        wanted = [Instrument(FUTURES, "SOLUSDT"), Instrument(SPOT, "*")]
        [made] = [
            child for child in children(Settings(), plan(), exchange, wanted, tmp_path) if child.name == "simulate"
        ]
        line = " ".join(made.command)
        assert line.endswith("--venue both --symbol BTCUSDT --symbol ETHUSDT --symbol SOLUSDT")
        made = children(Settings(), plan("binance_futures"), exchange, wanted, tmp_path)[0]
        assert "--venue BINANCE_FUTURES" in " ".join(made.command)
        assert [child.name for child in children(Settings(), plan("raven_tibs"), exchange, [], tmp_path)] == [
            "raven_tibs"
        ]

    def test_short_bars_are_for_newcomers_only(self, tmp_path: Path) -> None:
        exchange = simulated(Settings(), 9443, "")
        own = Settings(timebar=TimebarSettings(seconds=[60]))
        for settings, has_short in ((Settings(), True), (own, False)):
            [made] = children(settings, plan("raven_timebar"), exchange, [], tmp_path)
            assert ("--seconds" in made.command) is has_short

    async def test_without_a_source_no_exchange_is_looked_for(self) -> None:
        exchange = await choose_exchange(Settings(), [], None, 9443)
        assert (exchange.simulated, exchange.environment) == (False, {})


async def test_a_port_that_is_taken_names_service_and_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings(server=ServerSettings(port_tibs=port - 1000, port_binance_spot=21_000))
        with pytest.raises(InputError, match=rf"port {port} of raven_tibs's metrics \(server.port_tibs \+ 1000\)"):
            await require_free_ports(settings, ["raven_tibs"], Access())


class TestScreen:
    def screen(self, entries: list[control_pb2.Subscription], height: int = 60) -> str:
        watch = Watch({})
        watch.collections = lambda: entries  # type: ignore[method-assign]
        children = [Child(name, [], ChildLog(Path("none"))) for name in SERVICES]
        lines = Dashboard(watch, children, [Instrument(SPOT, "LATERUSDT")], "Raven").view(180, height)
        return "\n".join(line.plain for line in lines)

    def entry(self, number: int, venue: str = SPOT) -> control_pb2.Subscription:
        return control_pb2.Subscription(
            venue=venue, symbol=f"S{number}USDT", state=STREAMING, rows=number, gaps=1, missing_ids=12
        )

    def test_a_thousand_symbols_are_a_few_and_a_summary(self) -> None:
        text = self.screen([self.entry(number) for number in range(1000)])
        shown = [line for line in text.splitlines() if "USDT" in line and "streaming" in line]
        assert len(shown) <= 12
        assert f"{1001 - len(shown)} more" in text
        assert text.count("\n") <= 60
        assert "S0USDT of BINANCE_SPOT: 1 gap, 12 trades missing" in text
        assert "997 symbols more with problems: 11,964 trades missing" in text

    @pytest.mark.parametrize("height", [10, 24, 40, 80])
    def test_it_fits_the_terminal(self, height: int) -> None:
        lines = self.screen([self.entry(number) for number in range(50)], height).splitlines()
        assert len(lines) <= height
        assert ("on a taller terminal" in lines[-1]) == (height == 10)

    def test_the_venue_is_shown_where_there_are_two(self) -> None:
        assert "venue" not in self.screen([self.entry(1)])
        text = self.screen([self.entry(1), self.entry(1, FUTURES)])
        assert "venue" in text
        assert f"{FUTURES}  S1USDT" in text

    def test_each_instrument_has_one_row(self) -> None:
        later = Instrument(SPOT, "LATERUSDT")
        assert [row.symbol for row in Dashboard(Watch({}), [], [later, later], "Raven")._rows()] == ["LATERUSDT"]
        watch = Watch({"binance_spot": None})  # type: ignore[dict-item] - it is not asked
        twice = [
            control_pb2.Subscription(venue=SPOT, symbol=name, rows=rows)
            for rows, name in enumerate(["*", "A", "B", "A"])
        ]
        watch.status["binance_spot"] = control_pb2.StatusResponse(subscriptions=twice)
        assert sorted(row.symbol for row in watch.collections()) == ["A", "B"]

    def test_what_was_asked_for_is_shown_before_it_comes(self) -> None:
        assert "LATERUSDT" in self.screen([])

    async def test_what_a_process_said_is_nothing_its_successor_says(self) -> None:
        child, watch = Child("raven_tibs", [], ChildLog(Path("none"))), Watch({})
        watch.status["raven_tibs"] = said = control_pb2.StatusResponse(healthy=True, pid=1)
        assert answer_of(child, watch) is None
        child.process = await asyncio.create_subprocess_exec("sleep", "60")
        assert answer_of(child, watch) is None
        said.pid = child.process.pid
        assert answer_of(child, watch) == said
        child.process.kill()
        await child.process.wait()

    def test_states_of_services(self) -> None:
        child = Child("raven_tibs", [], ChildLog(Path("none")))
        assert service_state(child, None) == "starting"
        child.restarts = child.failures = 1
        assert service_state(child, None) == "restarting"
        child.failures = 3
        assert service_state(child, control_pb2.StatusResponse(healthy=True)) == "failing"

    def test_every_state_of_a_symbol_has_a_word(self) -> None:
        assert set(output.STATES) == set(control_pb2.SymbolState.values())
