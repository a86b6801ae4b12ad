"""What a commit carries beside its rows: last keys and positions, as Delta application transactions.

An application transaction is a name and an int64. Delta Lake keeps the last one written of each name through
checkpoints, compaction and log cleanup; it can be looked up by name, not listed. Hence the names:

    raven/last/<table>/<venue>/<symbol>[/<spec>]   the highest key stored: a trade id, a TIB's first trade id,
                                                   or a time bar's open_time in microseconds
    raven/position/<upstream>                      the sequence of the upstream's cursor
    raven/journal/<upstream>/0, /1, …              its journal id, seven bytes each; an empty piece ends it
    raven/sorted/<venue>/<date>                    when the day was last sorted, in milliseconds

The sequence of a new journal may be lower than that of the old one: the last written holds, not the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Final
from urllib.parse import quote

from raven.batches.batch import Cursor

Lookup = Callable[[str], int | None]

_PIECE_BYTES: Final = 7


def transaction_name(*parts: str) -> str:
    """The name made of `parts`; distinct for distinct parts, whatever characters they hold."""
    return "/".join(["raven", *(quote(part, safe="") for part in parts)])


def encode_positions(positions: Mapping[str, Cursor]) -> dict[str, int]:
    """The transactions that say `positions`, by name."""
    transactions: dict[str, int] = {}
    for upstream, cursor in positions.items():
        transactions[transaction_name("position", upstream)] = cursor.sequence
        journal_id = cursor.journal_id.encode()
        for index, start in enumerate(range(0, len(journal_id) + _PIECE_BYTES, _PIECE_BYTES)):
            piece = journal_id[start : start + _PIECE_BYTES]
            # the leading 1 keeps zero bytes in front
            transactions[transaction_name("journal", upstream, str(index))] = int.from_bytes(b"\x01" + piece)
    return transactions


def decode_position(upstream: str, lookup: Lookup) -> Cursor | None:
    """The position of `upstream` out of its transactions; None when there are none."""
    sequence = lookup(transaction_name("position", upstream))
    if sequence is None:
        return None
    journal_id = b""
    for index in count():
        number = lookup(transaction_name("journal", upstream, str(index)))
        if number is None or number == 1:
            break
        journal_id += number.to_bytes(_PIECE_BYTES + 1).lstrip(b"\x00")[1:]
    return Cursor(journal_id.decode(), sequence)
