"""The settings of the stores: the embedded Delta Lake, InfluxDB, TimescaleDB."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from raven.settings.addresses import POSTGRESQL, checked_url
from raven.settings.values import File, InfluxUrl, Section, Token


class DeltaSettings(Section):
    """When the embedded store is written and compacted."""

    flush_rows: int = Field(100_000, ge=1)
    flush_s: float = Field(10.0, gt=0)
    maintain_s: float = Field(600.0, gt=0)


class InfluxSettings(Section):
    """InfluxDB v2 for trades; not configured while `url` is empty, otherwise token, org and bucket are needed.

    - `verify_tls`, `tls_ca`: whether an https server's certificate is checked, and the PEM file of the authorities that
      are trusted; empty: well-known public ones.
    - `timeout_s`: how long an answer is waited for.
    - `flush_rows`, `flush_s`: when trades are written; `request_rows`, `request_bytes` bound each request of a flush.
    """

    url: InfluxUrl = ""
    token: Token = SecretStr("")
    org: str = ""
    bucket: str = ""
    verify_tls: bool = True
    tls_ca: File = ""
    timeout_s: float = Field(30.0, gt=0)
    flush_rows: int = Field(100_000, ge=1)
    flush_s: float = Field(1.0, gt=0)
    request_rows: int = Field(10_000, ge=1)
    request_bytes: int = Field(4 * 2**20, ge=2**12)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        missing = [name for name in ("org", "bucket") if not getattr(self, name)]
        missing += [] if self.token.get_secret_value() else ["token"]
        if self.url and missing:
            raise ValueError(f"url is set and {', '.join(missing)} not: InfluxDB needs url, token, org and bucket")
        return self


class TimescaleSettings(Section):
    """TimescaleDB, or plain PostgreSQL, for bars; not configured while `url` is empty.

    - `url`: postgresql://user:password@host:port/database, with options such as `?sslmode=verify-full`.
    - `timeout_s`: how long an answer is waited for.
    - `flush_rows`, `flush_s`: when bars are written.
    """

    url: SecretStr = SecretStr("")
    timeout_s: float = Field(30.0, gt=0)
    flush_rows: int = Field(20_000, ge=1)
    flush_s: float = Field(1.0, gt=0)

    @field_validator("url")
    @classmethod
    def _is_postgresql(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value():
            checked_url(url.get_secret_value(), POSTGRESQL, secret=True)
        return url
