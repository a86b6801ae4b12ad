"""Which Raven this is; written here so that no file has to be asked for it while Raven runs."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
