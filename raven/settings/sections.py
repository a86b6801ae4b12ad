"""What can be set: one class a table of the settings file, each key with its type, default and bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from raven.settings.layers import layers
from raven.settings.stores import DeltaSettings, InfluxSettings, TimescaleSettings
from raven.settings.values import (
    LIST,
    METRICS_PORT_OFFSET,
    Address,
    File,
    Folder,
    HttpUrl,
    LogLevel,
    Port,
    Section,
    StoreName,
    Token,
    WebSocketUrl,
)


class ServerSettings(Section):
    """Where services bind, and the port of each.

    Metrics are served at the port + 1000, to anyone who can connect, so they have an address of their own:
    `metrics_host`; empty: `host` where that is an address of loopback, else 127.0.0.1.
    """

    host: str = "127.0.0.1"
    metrics_host: str = ""
    port_binance_spot: Port = 50001
    port_binance_futures: Port = 50002
    port_timebar_minutes: Port = 50051
    port_tibs: Port = 50052
    port_tick_persistence: Port = 50091
    port_bar_persistence: Port = 50092

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        """Two services cannot share a port, nor one serve gRPC where another serves its metrics."""
        ports = {name: value for name, value in self if name.startswith("port_")}
        taken: dict[int, str] = {}
        for name, port in ports.items():
            if port in taken:
                raise ValueError(f"{taken[port]} and {name} are both {port}; give each service a port of its own")
            taken[port] = name
        for name, port in ports.items():
            if port + METRICS_PORT_OFFSET in taken:
                raise ValueError(
                    f"{taken[port + METRICS_PORT_OFFSET]} is {port + METRICS_PORT_OFFSET}, "
                    f"where the service of {name} serves its metrics"
                )
        return self


class UpstreamSettings(Section):
    """Where a service finds the others: host, host:port or URL; empty: on this machine. The port is that of `[server]`
    where none is given.
    """

    binance_spot: Address = ""
    binance_futures: Address = ""
    raven_timebar: Address = ""
    raven_tibs: Address = ""
    tick_persistence: Address = ""
    bar_persistence: Address = ""


class SecuritySettings(Section):
    """Who may call a service, and whom its clients trust; see docs/several_machines.md.

    - `token`: what every call but health has to bring, the same on all machines; empty: only this machine is obeyed.
    - `tls_certificate`, `tls_key`: PEM files of a service's own certificate chain and key; both set: TLS is on.
    - `tls_ca`: PEM file of the authorities that clients trust; empty: well-known public ones.
    - `tls_client_certificates`: a service demands of its clients certificates signed by `tls_ca` (mutual TLS).
    - `max_subscriptions_per_peer`: streams of batches that one address may hold at a service.
    - `max_concurrent_calls`: calls of all peers that a service has under way, streams included.
    - `max_connections_per_peer`, `max_connections`: connections that one address, and all, may hold at a service.
    """

    token: Token = SecretStr("")
    tls_certificate: File = ""
    tls_key: File = ""
    tls_ca: File = ""
    tls_client_certificates: bool = False
    max_subscriptions_per_peer: int = Field(256, ge=1)
    max_concurrent_calls: int = Field(4096, ge=1)
    max_connections_per_peer: int = Field(256, ge=1)
    max_connections: int = Field(1024, ge=8)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if bool(self.tls_certificate) != bool(self.tls_key):
            given, missing = ("tls_certificate", "tls_key") if self.tls_certificate else ("tls_key", "tls_certificate")
            raise ValueError(f"{given} is set and {missing} is not: TLS needs both")
        if self.tls_client_certificates and not (self.tls_certificate and self.tls_ca):
            raise ValueError("tls_client_certificates needs tls_certificate, tls_key and tls_ca")
        return self


class BinanceSettings(Section):
    """Endpoints of one Binance venue, how its trades are batched, and how long what is missing is waited for.

    - `proxy`: an http:// or socks5:// URL for both endpoints; empty: as the environment's proxy variables say.
    - `streams_per_connection`: symbols a WebSocket connection carries; more symbols open more connections.
    - `connection_max_age_s`: a connection is replaced, with overlap, before the exchange ends it at 24 h.
    - `stale_s`: a connection without any frame for so long is looked into.
    - `hold_max_s`, `hold_max_rows`: how long, and for how many rows of all symbols, a symbol waits for missing ids.
    - `symbols_poll_s`: how often the list of symbols is read anew.
    """

    websocket_url: WebSocketUrl
    rest_url: HttpUrl
    proxy: SecretStr = SecretStr("")  # it may hold a password
    batch_max_rows: int = Field(8192, ge=1, le=1_000_000)
    batch_max_age_ms: int = Field(25, ge=0, le=10_000)
    stale_s: float = Field(60.0, gt=0)
    connect_timeout_s: float = Field(10.0, gt=0)
    streams_per_connection: int = Field(256, ge=1, le=1024)
    connection_max_age_s: float = Field(23.5 * 3600, gt=0, le=24 * 3600)
    hold_max_s: float = Field(30.0, ge=0)
    hold_max_rows: int = Field(200_000, ge=0)
    symbols_poll_s: float = Field(600.0, gt=0)


class BinanceSpotSettings(BinanceSettings):
    """Binance spot."""

    websocket_url: WebSocketUrl = "wss://stream.binance.com:9443"
    rest_url: HttpUrl = "https://api.binance.com"


class BinanceFuturesSettings(BinanceSettings):
    """Binance USD-M futures. The WebSocket's path is part of the endpoint: the old root connects and stays silent."""

    websocket_url: WebSocketUrl = "wss://fstream.binance.com/market"
    rest_url: HttpUrl = "https://fapi.binance.com"


class JournalSettings(Section):
    """How much of the durable log is kept."""

    max_bytes: int = Field(20 * 2**30, ge=2**20)
    segment_bytes: int = Field(64 * 2**20, ge=2**12)
    retention_h: float = Field(48.0, gt=0)


class TibsSettings(Section):
    """Parameters of tick imbalance bars and sizes of the other bars that trades close, as the flags of `raven_tibs`."""

    initial_size: float = 100.0
    initial_p_buy: float = 0.7
    alpha_size: float = 0.1
    alpha_imbl: float = 0.1
    size_min: float = 50.0
    size_max: float = 1000.0
    min_imbalance: float = 0.0
    max_ticks: int = 0
    imbalance_bars: bool = True
    tick_bars: Annotated[list[int], LIST] = []
    volume_bars: Annotated[list[float], LIST] = []
    dollar_bars: Annotated[list[float], LIST] = []


class TimebarSettings(Section):
    """Intervals of `raven_timebar`, and how long after its end a quiet symbol's bar waits."""

    seconds: Annotated[list[Annotated[int, Field(ge=1)]], LIST] = [60]
    allowed_lateness_ms: int = Field(2_000, ge=0)


class Settings(BaseSettings):
    """Everything a service can be told; see the sections.

    - `group_reads`: the group of the user that runs Raven may read its data; otherwise nobody else may.
    - `stores`: where rows go, each with a position of its own; trades to influx and delta, bars to timescale and delta.
      Empty: to the database that is configured; without one, and where `simulated` is set, to the embedded Delta Lake.
    - `store_probe_s`: how often a store is tried that needs mending: a wrong password, a missing bucket.
    """

    model_config = SettingsConfigDict(
        env_prefix="RAVEN__",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # it may be a secret, and tracebacks show it
    )

    data: Folder = Path("data")
    group_reads: bool = False
    simulated: bool = False
    log_level: LogLevel = "info"
    checkpoint_s: float = Field(2.0, gt=0)
    stores: Annotated[list[StoreName], LIST] = []
    store_probe_s: float = Field(30.0, gt=0)
    server: ServerSettings = ServerSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    security: SecuritySettings = SecuritySettings()
    binance_spot: BinanceSpotSettings = BinanceSpotSettings()
    binance_futures: BinanceFuturesSettings = BinanceFuturesSettings()
    journal: JournalSettings = JournalSettings()
    timebar: TimebarSettings = TimebarSettings()
    tibs: TibsSettings = TibsSettings()
    delta: DeltaSettings = DeltaSettings()
    influx: InfluxSettings = InfluxSettings()
    timescale: TimescaleSettings = TimescaleSettings()

    @field_validator("stores")
    @classmethod
    def _each_store_once(cls, stores: list[StoreName]) -> list[StoreName]:
        if len(set(stores)) < len(stores):
            raise ValueError(f"one is named twice: {', '.join(stores)}")
        return stores

    @model_validator(mode="after")
    def _stores_are_configured(self) -> Self:
        for name, is_set in (("influx", self.influx.url), ("timescale", self.timescale.url.get_secret_value())):
            if name in self.stores and not is_set:
                raise ValueError(f"stores names {name}, but {name}.url is not set")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - `layers` reads the environment
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """First wins: arguments, environment, local.toml, {RUN_MODE}.toml, defaults."""
        return (init_settings, *(layer.source for layer in reversed(layers(settings_cls))))
