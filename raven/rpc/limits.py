"""Bounds of what services say to each other."""

from __future__ import annotations

from typing import Final

MAX_MESSAGE_BYTES: Final = 64 * 2**20
MAX_SYMBOLS_PER_REQUEST: Final = 4096
