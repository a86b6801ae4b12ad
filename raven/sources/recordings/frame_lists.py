"""Frames out of a JSON list of them, each as it stands there or in the `info` that a client wrapped around it."""

from __future__ import annotations

from operator import attrgetter
from typing import Final

import msgspec

from raven.errors import InputError
from raven.sources.binance.frames import UNREADABLE
from raven.sources.recordings.files import read_whole
from raven.sources.recordings.kinds import Recording


class _Wrapped(msgspec.Struct, gc=False):
    info: msgspec.Raw


_PLAIN: Final = msgspec.json.Decoder(list[msgspec.Raw])
_WRAPPED: Final = msgspec.json.Decoder(list[_Wrapped])


def frames_of_list(recording: Recording) -> list[bytes]:
    """The frames of a list, which is read whole, each on one line; raises InputError when it is no list to its end."""
    body = read_whole(recording.path).removeprefix(b"\xef\xbb\xbf")
    try:
        compact = msgspec.json.format(body, indent=-1)
        if compact.startswith(b'[{"info":{'):
            return list(map(bytes, map(attrgetter("info"), _WRAPPED.decode(compact))))
        return list(map(bytes, _PLAIN.decode(compact)))
    except UNREADABLE as error:
        raise InputError(f"{recording.path.name} cannot be read: {error}") from error
