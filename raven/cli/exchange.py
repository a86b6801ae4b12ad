"""Where `raven up` collects from: Binance where it can be reached, else the simulated exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raven.errors import ExchangeError, InputError, RegionBlockedError
from raven.settings import BinanceSettings, Settings
from raven.sources.binance.protocol import FUTURES, SPOT, VenueProtocol
from raven.sources.binance.rest import BinanceRest

PROBE_S: Final = 4.0
PROTOCOLS: Final = {protocol.venue: protocol for protocol in (SPOT, FUTURES)}
SIMULATED_PATHS: Final = {SPOT.venue: "", FUTURES.venue: "/market"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """Where trades come from: the line that says so, and the settings that the services get."""

    simulated: bool
    line: str
    environment: Mapping[str, str]


async def choose_exchange(settings: Settings, venues: Sequence[str], simulate: bool | None, port: int) -> Exchange:
    """Binance if each of `venues` answers, else the simulated exchange.

    `simulate` insists on either; raises InputError when the real one was insisted on and does not answer.
    """
    if simulate:
        return simulated(settings, port, "SIMULATED exchange")
    try:
        for venue in venues:
            await _probe(getattr(settings, venue.lower()), PROTOCOLS[venue])
    except ExchangeError as error:
        why = str(error) if isinstance(error, RegionBlockedError) else "Binance cannot be reached"
        if simulate is False:
            raise InputError(str(error), hint="leave out --live to run on the simulated exchange") from error
        return simulated(settings, port, f"{why}: running on the SIMULATED exchange")
    names = " and ".join(venue.removeprefix("BINANCE_").lower() for venue in venues)
    return Exchange(False, f"Collecting from Binance {names}" if venues else "No source runs here", {})


def simulated(settings: Settings, port: int, line: str) -> Exchange:
    """The simulated exchange at `port` of this machine, with a data folder of its own: no database takes its trades."""
    environment = {
        "RAVEN__SIMULATED": "true",
        "RAVEN__DATA": str((settings.data / "simulated").absolute()),
        "RAVEN__STORES": "delta",  # also where the settings name databases
    }
    for venue, path in SIMULATED_PATHS.items():
        environment[f"RAVEN__{venue}__REST_URL"] = f"http://127.0.0.1:{port}"
        environment[f"RAVEN__{venue}__WEBSOCKET_URL"] = f"ws://127.0.0.1:{port}{path}"
    return Exchange(True, line, environment)


def data_folder(settings: Settings, exchange: Exchange) -> Path:
    """Where the services keep their data."""
    return Path(exchange.environment.get("RAVEN__DATA", str(settings.data.absolute())))


async def _probe(settings: BinanceSettings, protocol: VenueProtocol) -> None:
    """Raises ExchangeError when the venue does not answer; where the region is blocked its alternative is asked too."""
    rest = BinanceRest(settings.model_copy(update={"connect_timeout_s": PROBE_S}), protocol)
    try:
        await rest.server_time_ms()
    finally:
        await rest.close()
