"""Bounds of what services say to each other."""

from __future__ import annotations

from typing import Final

MAX_MESSAGE_BYTES: Final = 64 * 2**20  # what a service answers: a batch has to fit
MAX_REQUEST_BYTES: Final = 2**20  # what a service takes: the most symbols fit several times
MAX_SYMBOLS_PER_REQUEST: Final = 4096
MOST_SUGGESTED: Final = 8  # of so many unknown symbols the nearest names are sought, each through a whole list
