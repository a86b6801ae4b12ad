"""Settings: defaults, then `{RUN_MODE}.toml`, then `local.toml`, then `RAVEN__SECTION__KEY`; later ones win.

The TOML files are looked for in the working directory. An unknown key is an error that names the nearest one.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from raven.errors import SettingsError


class Section(BaseModel):
    """One table of the settings file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Port = int
LogLevel = Literal["debug", "info", "warning", "error"]


class ServerSettings(Section):
    """Where services bind, and the port of each.

    Metrics are served at the port + 1000, to anyone who can connect, so they have an address of their own:
    `metrics_host`; empty: `host` where that is an address of loopback, else 127.0.0.1.
    """

    host: str = "127.0.0.1"
    metrics_host: str = ""
    port_binance_spot: Port = Field(50001, ge=1, le=64535)
    port_binance_futures: Port = Field(50002, ge=1, le=64535)
    port_timebar_minutes: Port = Field(50051, ge=1, le=64535)
    port_tibs: Port = Field(50052, ge=1, le=64535)
    port_tick_persistence: Port = Field(50091, ge=1, le=64535)
    port_bar_persistence: Port = Field(50092, ge=1, le=64535)


class UpstreamSettings(Section):
    """Where a service finds the others, `host:port`; empty: on this machine at the port of `[server]`."""

    binance_spot: str = ""
    binance_futures: str = ""
    raven_timebar: str = ""
    raven_tibs: str = ""
    tick_persistence: str = ""
    bar_persistence: str = ""


class SecuritySettings(Section):
    """Who may call a service, and whom its clients trust; see docs/several_machines.md.

    - `token`: what every call but health has to bring, the same on all machines; empty: only this machine is obeyed.
    - `tls_certificate`, `tls_key`: PEM files of a service's own certificate chain and key; both set: TLS is on.
    - `tls_ca`: PEM file of the authorities that clients trust; empty: well-known public ones.
    - `tls_client_certificates`: a service demands of its clients certificates signed by `tls_ca` (mutual TLS).
    - `max_subscriptions_per_peer`: streams of batches that one address may hold at a service.
    - `max_concurrent_calls`: calls of all peers that a service has under way, streams included.
    """

    token: SecretStr = SecretStr("")
    tls_certificate: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    tls_client_certificates: bool = False
    max_subscriptions_per_peer: int = Field(256, ge=1)
    max_concurrent_calls: int = Field(4096, ge=1)

    @field_validator("token")
    @classmethod
    def _can_be_sent(cls, token: SecretStr) -> SecretStr:
        if not all("!" <= character <= "~" for character in token.get_secret_value()):
            raise ValueError("a token has visible ASCII characters only, no blanks; `raven token` makes one")
        return token

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

    websocket_url: str
    rest_url: str
    proxy: str = ""
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

    websocket_url: str = "wss://stream.binance.com:9443"
    rest_url: str = "https://api.binance.com"


class BinanceFuturesSettings(BinanceSettings):
    """Binance USD-M futures. The WebSocket's path is part of the endpoint: the old root connects and stays silent."""

    websocket_url: str = "wss://fstream.binance.com/market"
    rest_url: str = "https://fapi.binance.com"


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
    tick_bars: list[int] = []
    volume_bars: list[float] = []
    dollar_bars: list[float] = []


class TimebarSettings(Section):
    """Intervals of `raven_timebar`, and how long after its end a quiet symbol's bar waits."""

    seconds: list[int] = [60]
    allowed_lateness_ms: int = Field(2_000, ge=0)


class DeltaSettings(Section):
    """When the embedded store is written and compacted."""

    flush_rows: int = Field(100_000, ge=1)
    flush_s: float = Field(10.0, gt=0)
    maintain_s: float = Field(600.0, gt=0)


class InfluxSettings(Section):
    """InfluxDB v2 for trades; not configured while `url` is empty."""

    url: str = ""
    token: SecretStr = SecretStr("")
    org: str = ""
    bucket: str = ""


class TimescaleSettings(Section):
    """TimescaleDB for bars; not configured while `url` is empty."""

    url: SecretStr = SecretStr("")


class Settings(BaseSettings):
    """Everything a service can be told; see the sections."""

    model_config = SettingsConfigDict(
        env_prefix="RAVEN__",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # it may be a secret, and tracebacks show it
    )

    data: Path = Path("data")
    simulated: bool = False
    log_level: LogLevel = "info"
    checkpoint_s: float = Field(2.0, gt=0)
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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """First wins: arguments, environment, local.toml, {RUN_MODE}.toml, defaults."""
        files = [TomlConfigSettingsSource(settings_cls, path) for path in _files()]
        return (init_settings, env_settings, *reversed(files))


def _files() -> Iterator[Path]:
    """The settings files in force, weakest first."""
    mode = os.environ.get("RUN_MODE")
    if mode:
        path = Path(f"{mode}.toml")
        if not path.exists():
            raise SettingsError(
                f"RUN_MODE={mode} asks for {path}, which is not in {Path.cwd()}",
                hint="run from the folder that holds it, or unset RUN_MODE",
            )
        yield path
    if Path("local.toml").exists():
        yield Path("local.toml")


def load(**overrides: Any) -> Settings:
    """The settings in force; raises SettingsError naming the key, what is wrong with it and the nearest name."""
    _refuse_unknown_variables()
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item) for item in error.errors())) from error
    except ValueError as error:  # TOML that does not parse
        files = ", ".join(str(path) for path in _files()) or "the environment"
        raise SettingsError(f"settings cannot be read from {files}: {error}") from error


class Origin(NamedTuple):
    """One setting in force: its key, its value (secrets hidden), and where it comes from."""

    key: str
    value: Any
    source: str


def origins() -> list[Origin]:
    """Every setting in force and its origin: a file, an environment variable, or `default`. Raises SettingsError."""
    settings = load()
    layers: list[tuple[str, dict[str, Any]]] = [
        (str(path), TomlConfigSettingsSource(Settings, path)()) for path in _files()
    ]
    layers.append(("", EnvSettingsSource(Settings)()))
    return [_origin(key, value, layers) for key, value in _flat(settings.model_dump(mode="json"))]


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _origin(key: str, value: Any, layers: list[tuple[str, dict[str, Any]]]) -> Origin:
    for source, values in reversed(layers):
        if key in dict(_flat(values)):
            variable = f"RAVEN__{key.replace('.', '__').upper()}"
            return Origin(key, value, source or variable)
    return Origin(key, value, "default")


def _refuse_unknown_variables() -> None:
    """A misspelt `RAVEN__…` variable would otherwise be ignored."""
    for variable in os.environ:
        if variable.startswith("RAVEN__"):
            section, _, _ = variable.removeprefix("RAVEN__").lower().partition("__")
            if section not in Settings.model_fields:
                raise SettingsError(f"unknown setting {variable}", hint=_nearest(section, list(Settings.model_fields)))


def _explain(item: Any) -> str:
    path = [str(part) for part in item["loc"]]
    name = ".".join(path)
    if item["type"] != "extra_forbidden":
        return f"setting {name}: {item['msg']}"
    fields: dict[str, Any] = dict(Settings.model_fields)
    for part in path[:-1]:
        fields = dict(fields[part].annotation.model_fields)
    return f"unknown setting {name} ({_nearest(path[-1], list(fields))})"


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
