"""Cursors between the wire and the core."""

from __future__ import annotations

from raven.batches.batch import Cursor
from raven.rpc.pb import market_data_pb2


def to_message(cursor: Cursor | None) -> market_data_pb2.Cursor | None:
    """As protobuf; None stays unset."""
    return None if cursor is None else market_data_pb2.Cursor(journal_id=cursor.journal_id, sequence=cursor.sequence)


def from_message(message: market_data_pb2.Cursor) -> Cursor:
    """Back from protobuf."""
    return Cursor(message.journal_id, message.sequence)
