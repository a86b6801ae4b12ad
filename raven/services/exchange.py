"""The wiring that the sources share."""

from __future__ import annotations

from raven.control.source_component import SourceComponent
from raven.services.runtime import Environment, Service
from raven.settings import BinanceSettings
from raven.sources.binance.protocol import VenueProtocol
from raven.sources.binance.source import BinanceSource, trade_stream


def build(environment: Environment, settings: BinanceSettings, protocol: VenueProtocol) -> Service:
    """The source of one venue over its journal."""
    hub = environment.open_hub(trade_stream(protocol.venue))
    source = BinanceSource(hub, settings, protocol, folder=environment.folder, telemetry=environment.telemetry)
    return Service(SourceComponent(source, environment.wanted), hub, [source.run], [source.close], source.facts)
