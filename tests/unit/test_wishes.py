"""The life of what a follower wants, without a connection."""

from __future__ import annotations

import pytest

from raven.batches.batch import Cursor
from raven.batches.instrument import Instrument
from raven.rpc.wishes import NOWHERE, Wishes

BTC, ETH, LTC = (Instrument("BINANCE_SPOT", name) for name in ("BTCUSDT", "ETHUSDT", "LTCUSDT"))


def at(sequence: int, journal: str = "j") -> Cursor:
    return Cursor(journal, sequence)


def collecting(*instruments: Instrument, start: int = 5) -> Wishes:
    """Wishes that are granted and covered by the position."""
    wishes = Wishes()
    wishes.want(instruments, joining=True)
    for instrument in instruments:
        wishes.grant(instrument, at(start))
    wishes.rewind()
    return wishes


def test_what_joins_is_rewound_to_once() -> None:
    wishes = Wishes()
    wishes.want([BTC, ETH], joining=True)
    assert wishes.not_granted == [BTC, ETH]
    assert wishes.rewind() is None, "where it began is not known yet"
    wishes.grant(BTC, at(7))
    wishes.grant(ETH, at(5))
    assert wishes.rewind() == ([BTC, ETH], at(5), True)
    assert wishes.rewind() is None
    wishes.want([LTC], joining=True)
    wishes.grant(LTC, at(9))
    assert wishes.rewind() == ([LTC], at(9), False), "the others go on where they are"


def test_what_joins_passes_over_nothing_of_what_leaves() -> None:
    wishes = collecting(BTC)
    wishes.leave([BTC])
    wishes.want([ETH], joining=True)
    wishes.grant(ETH, at(9))
    assert wishes.rewind() == ([ETH], at(9), False), "rows of BTC before 9 may not have been taken"


def test_what_is_stopped_is_taken_up_to_its_end() -> None:
    wishes = collecting(BTC, ETH)
    assert wishes.leave([BTC, LTC]) == {BTC}
    assert (wishes.wanted, wishes.leaving, wishes.ending) == ([ETH], [BTC], [])
    assert wishes.take_over(at(100)) == [], "the upstream has not said where it ends"
    wishes.told({BTC: at(20)})
    assert wishes.take_over(None) == []
    assert wishes.take_over(at(19)) == []
    assert wishes.take_over(at(30, "another")) == []
    assert wishes.take_over(at(20)) == [BTC]
    assert wishes.ending == []
    wishes.leave([ETH])
    wishes.told({ETH: at(0)})
    assert wishes.take_over(None) == [ETH], "nothing was ever journaled"
    assert not wishes


def test_what_is_wanted_again_goes_on() -> None:
    wishes = collecting(BTC)
    wishes.leave([BTC])
    wishes.want([BTC], joining=False)
    wishes.told({BTC: at(20)})
    assert (wishes.wanted, wishes.ending) == ([BTC], [])
    assert wishes.not_granted == [BTC], "the upstream has stopped it"


@pytest.mark.parametrize("was_granted", [False, True])
def test_what_is_stopped_before_it_joined(was_granted: bool) -> None:
    wishes = Wishes()
    wishes.want([BTC], joining=True)
    if was_granted:
        wishes.grant(BTC, at(5))
    wishes.leave([BTC])
    wishes.told({BTC: at(20)})
    if was_granted:
        assert wishes.take_over(at(100)) == [], "its rows from 5 on were never taken"
        assert wishes.rewind() == ([BTC], at(5), True)
        assert wishes.take_over(at(20)) == [BTC]
    else:
        assert wishes.take_over(None) == [BTC], "it never began"


def test_what_was_stopped_before_a_restart() -> None:
    wishes = Wishes()
    wishes.resume_leaving([BTC, ETH], joining=[ETH])
    assert wishes.leaving == [BTC, ETH]
    wishes.told({BTC: at(20), ETH: at(20)})
    assert wishes.rewind() == ([ETH], at(0), False), "where it began is forgotten: from the oldest batch on"
    assert wishes.take_over(at(20)) == [BTC, ETH]


def test_ends_are_asked_again_of_another_journal() -> None:
    wishes = collecting(BTC)
    wishes.leave([BTC])
    wishes.told({BTC: at(20)})
    wishes.journal_changed()
    assert wishes.leaving == [BTC]
    wishes.told({BTC: at(3, "new")})
    assert wishes.take_over(at(3, "new")) == [BTC]


def test_refusals_are_news_once() -> None:
    wishes = collecting(BTC)
    wishes.want([ETH], joining=True)
    assert wishes.refuse(ETH, "no such symbol")
    assert not wishes.refuse(ETH, "no such symbol")
    assert not wishes.refuse(LTC, "never asked for")
    assert wishes.refusals == {ETH: "no such symbol"}
    wishes.drop_refused([BTC, ETH])
    assert wishes.wanted == [BTC]
    wishes.refuse(BTC, "halted")
    wishes.grant(BTC, at(9))
    assert wishes.refusals == {}


def test_a_lost_connection_asks_again() -> None:
    wishes = collecting(BTC, ETH)
    assert wishes.not_granted == []
    wishes.ask_again()
    assert wishes.not_granted == [BTC, ETH]
    wishes.grant(BTC, NOWHERE)
    assert wishes.not_granted == [ETH]


def test_a_session_that_never_joined_joins_with_the_next() -> None:
    wishes = Wishes()
    wishes.want([BTC], joining=True)
    wishes.grant(BTC, at(5))
    wishes.leave([BTC])
    wishes.told({BTC: at(20)})
    wishes.want([BTC], joining=True)
    wishes.grant(BTC, at(30))
    assert wishes.rewind() == ([BTC], at(5), True)


def test_a_session_before_a_restart_joins_from_the_oldest_batch() -> None:
    wishes = Wishes()
    wishes.resume_joining([BTC])
    wishes.want([BTC], joining=True)
    wishes.grant(BTC, at(30))
    assert wishes.rewind() == ([BTC], at(0), True)
