from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Cursor(_message.Message):
    __slots__ = ("journal_id", "sequence")
    JOURNAL_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    journal_id: str
    sequence: int
    def __init__(self, journal_id: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class Earliest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Latest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ("consumer", "cursor", "earliest", "latest", "append_time_us", "symbols")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    EARLIEST_FIELD_NUMBER: _ClassVar[int]
    LATEST_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    consumer: str
    cursor: Cursor
    earliest: Earliest
    latest: Latest
    append_time_us: int
    symbols: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, consumer: _Optional[str] = ..., cursor: _Optional[_Union[Cursor, _Mapping]] = ..., earliest: _Optional[_Union[Earliest, _Mapping]] = ..., latest: _Optional[_Union[Latest, _Mapping]] = ..., append_time_us: _Optional[int] = ..., symbols: _Optional[_Iterable[str]] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("cursor", "arrow_ipc")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    ARROW_IPC_FIELD_NUMBER: _ClassVar[int]
    cursor: Cursor
    arrow_ipc: bytes
    def __init__(self, cursor: _Optional[_Union[Cursor, _Mapping]] = ..., arrow_ipc: _Optional[bytes] = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("cursor", "batch")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    cursor: Cursor
    batch: Batch
    def __init__(self, cursor: _Optional[_Union[Cursor, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ...) -> None: ...

class AcknowledgeRequest(_message.Message):
    __slots__ = ("consumer", "cursor")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    consumer: str
    cursor: Cursor
    def __init__(self, consumer: _Optional[str] = ..., cursor: _Optional[_Union[Cursor, _Mapping]] = ...) -> None: ...

class AcknowledgeResponse(_message.Message):
    __slots__ = ("behind_rows", "behind_since_us")
    BEHIND_ROWS_FIELD_NUMBER: _ClassVar[int]
    BEHIND_SINCE_US_FIELD_NUMBER: _ClassVar[int]
    behind_rows: int
    behind_since_us: int
    def __init__(self, behind_rows: _Optional[int] = ..., behind_since_us: _Optional[int] = ...) -> None: ...
