"""The closed list of events, each with its level. docs/observability.md is made of it.

ERROR: data was lost or a human is needed. WARNING: something is wrong and is being dealt with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

Level = Literal["info", "warning", "error"]


class Event(NamedTuple):
    """One event: its level and what it means.

    - `repeats`: what repeats it with the same message is counted, and logged once a minute.
    - `ends`: the events that this one puts an end to; their next appearance is logged at once.
    """

    level: Level
    meaning: str
    repeats: bool = False
    ends: tuple[str, ...] = ()


EVENTS: Final[Mapping[str, Event]] = {
    # the service
    "started": Event("info", "The service listens."),
    "port_changed": Event("info", "Its port was changed in the settings: it took its folder along."),
    "left_behind": Event(
        "warning",
        "Another folder of this service holds recordings or wishes, and no process uses it; its port differs.",
    ),
    "restored": Event("info", "It collects again what it collected before the restart."),
    "stopped": Event("info", "It has ended as it was told to."),
    "no_token": Event("warning", "It listens to other machines without a token; what they may do is limited."),
    "clear_text": Event("warning", "The token and the data go over the network in clear text."),
    "few_files": Event("warning", "It may open so few files and connections that they could run out."),
    "connections_closed": Event(
        "warning", "An address holds more connections than it may; its newest are closed.", repeats=True
    ),
    "connections_full": Event("warning", "There are as many connections as may be; others are refused.", repeats=True),
    "upkeep_failed": Event(
        "warning", "Something beside collecting cannot be done or saved now; it is tried again.", repeats=True
    ),
    "failed": Event("error", "It cannot run, or not go on, for the reason given; the process ends."),
    "crashed": Event("error", "It ends because of an error nobody foresaw; please report it with its traceback."),
    "uncaught": Event("error", "A part of it failed unexpectedly; please report it with its traceback.", repeats=True),
    "python_warning": Event("warning", "Python or a library warns of something.", repeats=True),
    "library": Event("warning", "A line that a library logged, at the library's level."),
    # the exchange
    "exchange_connected": Event("info", "Connected to the exchange.", ends=("exchange_unreachable",)),
    "exchange_lost": Event("warning", "A connection to the exchange broke; it is opened again.", repeats=True),
    "exchange_unreachable": Event("warning", "No connection can be opened now; it is tried again.", repeats=True),
    "region_blocked": Event("warning", "The exchange does not serve this region; its public endpoint is used."),
    "attempts_limited": Event("warning", "So many connections were tried that the others wait.", repeats=True),
    "replacement_failed": Event(
        "warning", "The connection that should replace one cannot be opened; the old one stays.", repeats=True
    ),
    "exchange_shutdown": Event("warning", "The exchange will end a connection soon: it is replaced before."),
    "exchange_refused": Event("error", "The exchange refused a request.", repeats=True),
    "rest_limited": Event("warning", "The exchange asks to send no requests for some time; all wait.", repeats=True),
    "symbols_unchecked": Event(
        "warning", "The exchange could not be asked whether it has the symbols; they are taken.", repeats=True
    ),
    "symbols_unread": Event("warning", "The list of symbols could not be read anew; the old one holds.", repeats=True),
    "symbol_state": Event("warning", "A collected symbol does not trade any more: halted, in a break, delisted."),
    "symbol_trades": Event("info", "A symbol that was halted trades again."),
    "clock_offset": Event("warning", "The exchange's clock and this machine's are more than a second apart."),
    "stale_unchecked": Event(
        "warning", "A silent connection is opened anew: whether it missed trades could not be asked.", repeats=True
    ),
    "heal_failed": Event("warning", "Missing trades cannot be fetched now; it is tried again.", repeats=True),
    "catch_up_failed": Event(
        "warning", "Whether a quiet symbol missed trades while it was not carried could not be asked.", repeats=True
    ),
    "held_left": Event("info", "Rows that wait for missing ones are left to the next start, which fetches them."),
    "epoch_unchecked": Event(
        "warning", "Ids of a symbol fell back, and the exchange could not be asked why.", repeats=True
    ),
    "id_epoch": Event(
        "error",
        "The exchange numbers the trades of a symbol anew. They are journaled; consumers drop ids at or below their "
        "last one, and do not take them until the ids are beyond that.",
    ),
    "gap": Event("error", "Trades were not received: the ids between `after_id` and `before_id`."),
    "dead_frames": Event(
        "warning",
        "Messages could not be decoded, or trades cannot be true; they are in the dead-letter file.",
        repeats=True,
    ),
    "unwanted": Event("warning", "The exchange sends trades of symbols that nobody asked for.", repeats=True),
    # a recording in the place of the exchange
    "replayed": Event("info", "A recording was replayed to its end."),
    "recording_hole": Event("error", "Batches of a recording were dropped by its journal while it was replayed."),
    "left_out": Event("warning", "Rows of recorded files are not replayed: repeats, conflicts or bad ones."),
    # upstreams
    "upstream_connected": Event("info", "Following another service.", ends=("upstream_lost",)),
    "upstream_lost": Event(
        "warning", "Another service cannot be reached or refuses; it is tried again, and nothing is lost.", repeats=True
    ),
    "journal_changed": Event("warning", "The upstream has a new journal; it is read from its beginning, by trade ids."),
    "rows_unfit": Event(
        "error", "Rows of an upstream's journal break a rule, and are left out of the bars.", repeats=True
    ),
    "batch_unfit": Event(
        "error",
        "A batch of an upstream's journal cannot be read or is of another kind. Sinks keep it in the dead letters.",
        repeats=True,
    ),
    "symbol_refused": Event("error", "An upstream refuses a symbol that is wanted here.", repeats=True),
    # bars
    "tib_parameters": Event("warning", "Parameters of tick imbalance bars under which bars of two trades may appear."),
    "state_dropped": Event("warning", "The saved state of bars that are built no more is given up."),
    "state_refused": Event("warning", "A saved state cannot be read; its bars start anew."),
    # stores and disk
    "store_unavailable": Event(
        "warning", "The store cannot be written now; it is tried again, and nothing is lost.", repeats=True
    ),
    "store_refused": Event(
        "error",
        "The store needs mending, as the message says; it is tried now and then, and nothing is lost.",
        repeats=True,
    ),
    "store_back": Event("info", "The store is being written again.", ends=("store_unavailable", "store_refused")),
    "rows_refused": Event(
        "error", "Rows were refused for what they hold, by a store or before it; they lie in the dead letters."
    ),
    "store_unreadable": Event(
        "warning", "The store takes rows, but what it holds cannot be read back with these settings.", repeats=True
    ),
    "rows_searched": Event(
        "warning",
        "Which rows of a flush a store refuses is being looked for; it takes long, and what is settled is saved.",
        repeats=True,
    ),
    "rows_too_old": Event("warning", "Rows are older than what a store keeps; it does not take them.", repeats=True),
    "not_flushed": Event("warning", "The store was down when the service ended; the journal keeps what is left."),
    "torn_commit": Event("warning", "A commit that a crash had torn was set aside; its rows are written again."),
    "maintained": Event("info", "A table was compacted."),
    "not_maintained": Event("warning", "A table could not be compacted; it is tried again.", repeats=True),
    "wanted_unsaved": Event(
        "warning",
        "What is wanted cannot be written to its file now; it is tried again, and nothing is lost.",
        repeats=True,
    ),
    "wanted_saved": Event("info", "What is wanted is in its file again.", ends=("wanted_unsaved",)),
    "wanted_set_aside": Event(
        "error", "Something wanted cannot be served; it is kept beside the file, and the rest is collected."
    ),
    "disk": Event("warning", "The disk of the journal is filling up."),
    "journal_overrun": Event("error", "The journal dropped rows at its size limit before every consumer had them."),
}
