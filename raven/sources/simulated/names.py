"""Names for a generated market of many symbols: what a real list holds, the odd ones included. Pure."""

from __future__ import annotations

from typing import Final

from raven.errors import InputError

NOT_TRADING: Final = "BCCUSDT"
"""The one of the symbols that is listed but does not trade."""

_ODD: Final = ("币安人生USDT", NOT_TRADING)
_ODD_PLACE: Final = 10
_QUOTES: Final = ("USDT", "USDC", "BTC", "FDUSD", "TRY", "EUR", "BNB", "ETH", "BRL", "JPY")
_BASES: Final = (
    "BTC", "ETH", "BNB", "SOL", "XRP", "DOGE", "ADA", "LTC", "TRX", "AVAX", "LINK", "DOT", "SHIB", "PEPE", "TON",
    "XLM", "SUI", "BCH", "HBAR", "UNI", "NEAR", "APT", "ICP", "ETC", "AAVE", "TAO", "VET", "FIL", "ALGO", "ATOM",
    "ARB", "OP", "INJ", "SEI", "IMX", "GRT", "RUNE", "STX", "TIA", "LDO", "JUP", "WIF", "BONK", "FLOKI", "FET",
    "RENDER", "WLD", "ENA", "ONDO", "ORDI", "PYTH", "STRK", "MKR", "SAND", "MANA", "AXS", "GALA", "FLOW", "EGLD",
    "THETA", "XTZ", "EOS", "NEO", "IOTA", "KAVA", "ZEC", "DASH", "XMR", "COMP", "SNX", "CRV", "SUSHI", "YFI",
    "BAL", "ZRX", "BAT", "ENJ", "CHZ", "HOT", "ANKR", "ONE", "CELO", "ROSE", "QTUM", "ZIL", "ICX", "ONT", "RVN",
    "WAVES", "KSM", "DYDX", "GMX", "PENDLE", "BLUR", "APE", "MAGIC", "HOOK", "HFT", "ID", "EDU", "ARKM", "CYBER",
    "MEME", "ACE", "MANTA", "ALT", "PIXEL", "AEVO", "ETHFI", "SAGA", "OMNI", "REZ", "NOT", "IO", "ZK", "LISTA",
    "ZRO", "BANANA", "DOGS", "CATI", "HMSTR", "EIGEN", "SCR", "COW", "PNUT", "ACT", "USUAL", "MOVE", "ME", "PENGU",
    "BIO", "LAYER",
)  # fmt: skip


def symbol_names(count: int) -> tuple[str, ...]:
    """`count` names, the busiest first; from a dozen on one of them is not ASCII, and one is NOT_TRADING.

    Raises InputError when there are not so many.
    """
    usual = [base + quote for quote in _QUOTES for base in _BASES if base != quote]
    most = len(usual) + len(_ODD)
    if not 1 <= count <= most:
        raise InputError(f"{count} symbols cannot be made", hint=f"1 to {most} can")
    return tuple([*usual[:_ODD_PLACE], *_ODD, *usual[_ODD_PLACE:]][:count])
