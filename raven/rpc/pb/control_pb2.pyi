from raven.rpc.pb import market_data_pb2 as _market_data_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SymbolState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SYMBOL_STATE_UNSPECIFIED: _ClassVar[SymbolState]
    SYMBOL_STATE_STREAMING: _ClassVar[SymbolState]
    SYMBOL_STATE_WAITING: _ClassVar[SymbolState]
    SYMBOL_STATE_CONNECTING: _ClassVar[SymbolState]
    SYMBOL_STATE_REFUSED: _ClassVar[SymbolState]
    SYMBOL_STATE_STOPPED: _ClassVar[SymbolState]
    SYMBOL_STATE_NOT_WANTED: _ClassVar[SymbolState]
    SYMBOL_STATE_KEPT: _ClassVar[SymbolState]
    SYMBOL_STATE_NOT_TRADING: _ClassVar[SymbolState]
SYMBOL_STATE_UNSPECIFIED: SymbolState
SYMBOL_STATE_STREAMING: SymbolState
SYMBOL_STATE_WAITING: SymbolState
SYMBOL_STATE_CONNECTING: SymbolState
SYMBOL_STATE_REFUSED: SymbolState
SYMBOL_STATE_STOPPED: SymbolState
SYMBOL_STATE_NOT_WANTED: SymbolState
SYMBOL_STATE_KEPT: SymbolState
SYMBOL_STATE_NOT_TRADING: SymbolState

class SymbolResult(_message.Message):
    __slots__ = ("venue", "symbol", "state", "message", "session_start", "session_end")
    VENUE_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SESSION_START_FIELD_NUMBER: _ClassVar[int]
    SESSION_END_FIELD_NUMBER: _ClassVar[int]
    venue: str
    symbol: str
    state: SymbolState
    message: str
    session_start: _market_data_pb2.Cursor
    session_end: _market_data_pb2.Cursor
    def __init__(self, venue: _Optional[str] = ..., symbol: _Optional[str] = ..., state: _Optional[_Union[SymbolState, str]] = ..., message: _Optional[str] = ..., session_start: _Optional[_Union[_market_data_pb2.Cursor, _Mapping]] = ..., session_end: _Optional[_Union[_market_data_pb2.Cursor, _Mapping]] = ...) -> None: ...

class StartRequest(_message.Message):
    __slots__ = ("symbols", "requester", "wait_s", "venue")
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    VENUE_FIELD_NUMBER: _ClassVar[int]
    symbols: _containers.RepeatedScalarFieldContainer[str]
    requester: str
    wait_s: float
    venue: str
    def __init__(self, symbols: _Optional[_Iterable[str]] = ..., requester: _Optional[str] = ..., wait_s: _Optional[float] = ..., venue: _Optional[str] = ...) -> None: ...

class StartResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SymbolResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SymbolResult, _Mapping]]] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("symbols", "requester", "venue")
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    VENUE_FIELD_NUMBER: _ClassVar[int]
    symbols: _containers.RepeatedScalarFieldContainer[str]
    requester: str
    venue: str
    def __init__(self, symbols: _Optional[_Iterable[str]] = ..., requester: _Optional[str] = ..., venue: _Optional[str] = ...) -> None: ...

class StopResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SymbolResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SymbolResult, _Mapping]]] = ...) -> None: ...

class StopAllRequest(_message.Message):
    __slots__ = ("force",)
    FORCE_FIELD_NUMBER: _ClassVar[int]
    force: bool
    def __init__(self, force: _Optional[bool] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Subscription(_message.Message):
    __slots__ = ("venue", "symbol", "state", "message", "wanted_by", "rows", "last_trade_id", "last_event_us", "last_price", "gaps", "missing_ids", "duplicates", "late", "matches", "pattern", "healed", "waits_for", "first_seen_us")
    VENUE_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WANTED_BY_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LAST_TRADE_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_EVENT_US_FIELD_NUMBER: _ClassVar[int]
    LAST_PRICE_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    MISSING_IDS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    HEALED_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEEN_US_FIELD_NUMBER: _ClassVar[int]
    venue: str
    symbol: str
    state: SymbolState
    message: str
    wanted_by: _containers.RepeatedScalarFieldContainer[str]
    rows: int
    last_trade_id: int
    last_event_us: int
    last_price: float
    gaps: int
    missing_ids: int
    duplicates: int
    late: int
    matches: int
    pattern: str
    healed: int
    waits_for: int
    first_seen_us: int
    def __init__(self, venue: _Optional[str] = ..., symbol: _Optional[str] = ..., state: _Optional[_Union[SymbolState, str]] = ..., message: _Optional[str] = ..., wanted_by: _Optional[_Iterable[str]] = ..., rows: _Optional[int] = ..., last_trade_id: _Optional[int] = ..., last_event_us: _Optional[int] = ..., last_price: _Optional[float] = ..., gaps: _Optional[int] = ..., missing_ids: _Optional[int] = ..., duplicates: _Optional[int] = ..., late: _Optional[int] = ..., matches: _Optional[int] = ..., pattern: _Optional[str] = ..., healed: _Optional[int] = ..., waits_for: _Optional[int] = ..., first_seen_us: _Optional[int] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("subscriptions",)
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    subscriptions: _containers.RepeatedCompositeFieldContainer[Subscription]
    def __init__(self, subscriptions: _Optional[_Iterable[_Union[Subscription, _Mapping]]] = ...) -> None: ...

class Link(_message.Message):
    __slots__ = ("name", "target", "connected", "error", "cursor", "lag_us", "needed")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LAG_US_FIELD_NUMBER: _ClassVar[int]
    NEEDED_FIELD_NUMBER: _ClassVar[int]
    name: str
    target: str
    connected: bool
    error: str
    cursor: _market_data_pb2.Cursor
    lag_us: int
    needed: bool
    def __init__(self, name: _Optional[str] = ..., target: _Optional[str] = ..., connected: _Optional[bool] = ..., error: _Optional[str] = ..., cursor: _Optional[_Union[_market_data_pb2.Cursor, _Mapping]] = ..., lag_us: _Optional[int] = ..., needed: _Optional[bool] = ...) -> None: ...

class Store(_message.Message):
    __slots__ = ("name", "table", "healthy", "error", "error_since_us", "backlog_rows", "backlog_s", "stored_rows", "dead_rows", "last_stored_us", "last_error", "last_error_us")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ERROR_SINCE_US_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_ROWS_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_S_FIELD_NUMBER: _ClassVar[int]
    STORED_ROWS_FIELD_NUMBER: _ClassVar[int]
    DEAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    LAST_STORED_US_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_US_FIELD_NUMBER: _ClassVar[int]
    name: str
    table: str
    healthy: bool
    error: str
    error_since_us: int
    backlog_rows: int
    backlog_s: float
    stored_rows: int
    dead_rows: int
    last_stored_us: int
    last_error: str
    last_error_us: int
    def __init__(self, name: _Optional[str] = ..., table: _Optional[str] = ..., healthy: _Optional[bool] = ..., error: _Optional[str] = ..., error_since_us: _Optional[int] = ..., backlog_rows: _Optional[int] = ..., backlog_s: _Optional[float] = ..., stored_rows: _Optional[int] = ..., dead_rows: _Optional[int] = ..., last_stored_us: _Optional[int] = ..., last_error: _Optional[str] = ..., last_error_us: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("service", "version", "pid", "started_us", "healthy", "problems", "subscriptions", "links", "counters", "simulated", "metrics", "stores")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STARTED_US_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    STORES_FIELD_NUMBER: _ClassVar[int]
    service: str
    version: str
    pid: int
    started_us: int
    healthy: bool
    problems: _containers.RepeatedScalarFieldContainer[str]
    subscriptions: _containers.RepeatedCompositeFieldContainer[Subscription]
    links: _containers.RepeatedCompositeFieldContainer[Link]
    counters: _containers.ScalarMap[str, int]
    simulated: bool
    metrics: _containers.ScalarMap[str, float]
    stores: _containers.RepeatedCompositeFieldContainer[Store]
    def __init__(self, service: _Optional[str] = ..., version: _Optional[str] = ..., pid: _Optional[int] = ..., started_us: _Optional[int] = ..., healthy: _Optional[bool] = ..., problems: _Optional[_Iterable[str]] = ..., subscriptions: _Optional[_Iterable[_Union[Subscription, _Mapping]]] = ..., links: _Optional[_Iterable[_Union[Link, _Mapping]]] = ..., counters: _Optional[_Mapping[str, int]] = ..., simulated: _Optional[bool] = ..., metrics: _Optional[_Mapping[str, float]] = ..., stores: _Optional[_Iterable[_Union[Store, _Mapping]]] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("consumer",)
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    consumer: str
    def __init__(self, consumer: _Optional[str] = ...) -> None: ...

class ForgetResponse(_message.Message):
    __slots__ = ("known",)
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    known: bool
    def __init__(self, known: _Optional[bool] = ...) -> None: ...
