"""How each venue describes a symbol in its `exchangeInfo`. Pure."""

from __future__ import annotations

from typing import Any, Final

from raven.sources.simulated.market import Listing

_PERPETUAL_UNTIL_MS: Final = 4_133_404_800_000
_ONBOARD_MS: Final = 1_577_836_800_000


def spot_symbol(listing: Listing, status: str) -> dict[str, Any]:
    """A symbol as spot lists it."""
    tick, lot = (f"{10.0**-decimals:.8f}" for decimals in (listing.price_decimals, listing.quantity_decimals))
    return {
        "symbol": listing.symbol,
        "status": status,
        "baseAsset": listing.base_asset,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote_asset,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "9000000.00000000", "stepSize": lot},
        ],
        "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]],
    }


def futures_symbol(listing: Listing, status: str) -> dict[str, Any]:
    """A symbol as USD-M futures list it: a perpetual contract."""
    tick, lot = (f"{10.0**-decimals:.{decimals}f}" for decimals in (listing.price_decimals, listing.quantity_decimals))
    size = {"minQty": lot, "maxQty": "1000000", "stepSize": lot}
    return {
        "symbol": listing.symbol,
        "pair": listing.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": _PERPETUAL_UNTIL_MS,
        "onboardDate": _ONBOARD_MS,
        "status": status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": listing.base_asset,
        "quoteAsset": listing.quote_asset,
        "marginAsset": listing.quote_asset,
        "pricePrecision": listing.price_decimals,
        "quantityPrecision": listing.quantity_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "settlePlan": 0,
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012000",
        "marketTakeBound": "0.30",
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", **size},
            {"filterType": "MARKET_LOT_SIZE", **size},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ],
    }
