"""Where the exchange is: its address, the proxy on the way, and the alternative where the region is blocked."""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from raven.errors import SettingsError
from raven.settings import BinanceSettings
from raven.sources.binance.failures import Failure, Kind
from raven.sources.binance.protocol import VenueProtocol

Key = Literal["websocket_url", "rest_url"]

PROXY_SCHEMES: Final = ("http", "https", "socks5", "socks5h")
_VARIABLES: Final = {
    "wss": ("wss", "socks", "https"),
    "ws": ("ws", "socks", "https", "http"),
    "https": ("https",),
    "http": ("http",),
}
"""The environment's proxy variables asked for an address, first wins: `https` is `https_proxy`, and so on."""


class Endpoint:
    """The address of one of the venue's two servers.

    Only the default address has an alternative: one that the user set is never replaced, the error says what to set.
    Raises SettingsError when the proxy of the settings is none.
    """

    def __init__(self, settings: BinanceSettings, protocol: VenueProtocol, key: Key) -> None:
        self.url: str = getattr(settings, key).rstrip("/")
        self._is_default = getattr(settings, key) == type(settings).model_fields[key].default
        self._alternative = {
            "websocket_url": protocol.alternative_websocket_url,
            "rest_url": protocol.alternative_rest_url,
        }[key].rstrip("/")
        self._section = protocol.venue.lower()
        self._key = key
        self._proxy = settings.proxy.get_secret_value()
        if self._proxy:
            _check_proxy(self._proxy, f"{self._section}.proxy")

    @property
    def proxy(self) -> str | None:
        """The proxy on the way there: the settings', else the environment's; None: directly."""
        if self._proxy:
            return self._proxy
        address = urlsplit(self.url)
        if proxy_bypass(address.netloc.rpartition("@")[2]):
            return None
        proxies = getproxies()
        for name in _VARIABLES.get(address.scheme, ()):
            if proxy := proxies.get(name):
                # a `socks` variable may name its proxy as if it spoke HTTP
                return f"socks5h://{proxy[7:]}" if name == "socks" and proxy.startswith("http://") else proxy
        return None

    def replace(self, blocked_url: str) -> str:
        """After `blocked_url` turned out blocked: where to go on instead; empty where there is nothing else."""
        if self.url == blocked_url and self._is_default and self._alternative not in ("", self.url):
            self.url = self._alternative
        return "" if self.url == blocked_url else self.url

    def explain(self, failure: Failure, url: str) -> str:
        """What failed at `url`, and what to do about it."""
        hint = self.hint(failure)
        return f"{self.describe(failure, url)} ({hint})" if hint else self.describe(failure, url)

    def describe(self, failure: Failure, url: str) -> str:
        """What failed at `url`, in words that hold no secret of the proxy's address."""
        proxy = self.proxy
        if failure.kind is Kind.BLOCKED:
            return f"{url} {failure.cause}: this region is blocked"
        if failure.kind is Kind.UNREACHABLE:
            via = f" through the proxy {shown(proxy)}" if proxy else ""
            return hide(f"{url} cannot be reached{via}: {failure.cause}", proxy)
        return hide(f"{url} {failure.cause}", proxy)

    def hint(self, failure: Failure) -> str:
        """What to do about it; empty when there is nothing to add."""
        if failure.kind is Kind.UNREACHABLE:
            proxy = f", the proxy ({self._section}.proxy or the environment's)" if self.proxy else ""
            return f"check the network, its DNS and firewall{proxy}, and {self._section}.{self._key}"
        if failure.kind is Kind.BLOCKED:
            other = ""
            if self._alternative not in ("", self.url):
                other = f"set {self._section}.{self._key} to {self._alternative}, or "
            return f"{other}set {self._section}.proxy to a proxy in a region that the exchange serves"
        return ""


def _check_proxy(proxy: str, name: str) -> None:
    problem = ""
    try:
        address = urlsplit(proxy)
        if address.scheme not in PROXY_SCHEMES or not address.hostname or address.port is None:
            problem = "is no proxy"
    except ValueError:
        problem = "cannot be read"
    if problem:
        raise SettingsError(
            f"setting {name} {problem}", hint="give http://host:port or socks5://host:port, user:password@ before host"
        )


def shown(proxy: str) -> str:
    """A proxy's address without user and password."""
    try:
        address = urlsplit(proxy)
    except ValueError:
        return "of unreadable address"
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}"


def hide(text: str, proxy: str | None) -> str:
    """`text` without the user and password of `proxy`, should a library have put them in."""
    user_info, separator, _ = (proxy or "").partition("://")[2].rpartition("@")
    if not separator:
        return text
    password = user_info.partition(":")[2]
    for secret in (user_info, password, unquote(password)):
        if secret:
            text = text.replace(secret, "***")
    return text
