"""Bounds of what services say to each other."""

from __future__ import annotations

import re
from typing import Final

MAX_MESSAGE_BYTES: Final = 64 * 2**20  # what a service answers: a batch has to fit
MAX_REQUEST_BYTES: Final = 2**20  # what a service takes: the most symbols fit several times
MAX_SYMBOLS_PER_REQUEST: Final = 4096
MOST_SUGGESTED: Final = 8  # of so many unknown symbols the nearest names are sought, each through a whole list

_NAME: Final = re.compile(r"[A-Za-z0-9_.@:-]{1,128}")


def name_problem(name: str) -> str:
    """Why a consumer cannot be called so; empty when it can."""
    if _NAME.fullmatch(name):
        return ""
    return f"{name[:128]!r} is no name of a consumer: one has up to 128 letters, digits and any of _.@:-"
