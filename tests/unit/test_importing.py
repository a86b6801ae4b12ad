"""Importing: the same recording whatever the order of files, rows and commands; all of it or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import raven
from raven.batches.batch import BatchMeta
from raven.batches.ipc import decode
from raven.batches.schema import TRADE_SCHEMA, stream_schema, to_frame, to_record_batch
from raven.builders import DroppedRowsWarning
from raven.errors import InputError, JournalError, JournalLockedError
from raven.journal import Journal, JournalReader
from raven.sources import importing
from raven.sources.importing import ImportReport, import_files
from raven.sources.recordings import RecordingWarning
from raven.sources.replacing import replacing
from tests.unit.samples import trades
from tests.unit.test_ordering import Row, frame_of, oracle, recorded

SCHEMA = stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_SPOT")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH_ROWS", 7)


def bring(files: list[Path], into: Path, **options: object) -> ImportReport:
    return import_files(files, into=into, data=into.parent, **options)


def write(path: Path, frame: pl.DataFrame, venue: str = "BINANCE_SPOT") -> Path:
    frame.with_columns(venue=pl.lit(venue)).write_parquet(path)
    return path


def held(folder: Path) -> pl.DataFrame:
    return pl.concat([to_frame(decode(entry.payload)[0]) for entry in JournalReader(folder).entries()])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a journal; what its lock says of who held it last does not matter."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "lock"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class TestAnyOrder:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(rows=recorded().filter(bool), data=st.data())
    @pytest.mark.slow
    def test_in_any_order_by_any_number_of_commands(self, tmp_path: Path, rows: list[Row], data: st.DataObject) -> None:
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        shuffled = data.draw(st.permutations(rows + data.draw(st.lists(st.sampled_from(rows), max_size=9))))
        cuts = sorted(data.draw(st.lists(st.integers(1, len(shuffled)), max_size=3)))
        bounds = [pair for pair in zip([0, *cuts], [*cuts, len(shuffled)], strict=True) if pair[0] < pair[1]]
        files = [
            write(tmp_path / f"{number}.parquet", frame_of(list(shuffled[start:stop])))
            for number, (start, stop) in enumerate(bounds)
        ]
        into = tmp_path / "journal"
        commands = data.draw(st.integers(1, len(files)))
        reports = [bring(files[number::commands], into) for number in range(commands)]
        expected = oracle(rows)
        assert_frame_equal(held(into), expected)
        assert sum(report.rows for report in reports) == len(rows)
        assert sum(report.duplicates for report in reports) == len(shuffled) - len(rows)
        newest = expected["ts_event"].dt.epoch("us").cum_max()
        watermarks, at = [], 0
        for entry in JournalReader(into).entries():
            at += entry.rows
            watermarks.append((entry.meta.watermark_us, newest[at - 1]))
        assert all(said == right for said, right in watermarks)
        assert names(tmp_path) == {"journal", *(path.name for path in files)}

    def test_what_comes_after_all_is_appended_and_keeps_the_journal(self, tmp_path: Path) -> None:
        into = tmp_path / "journal"
        first = bring([write(tmp_path / "1.parquet", trades(range(20)))], into)
        before, id_ = contents(into), JournalReader(into).id
        second = bring([write(tmp_path / "2.parquet", trades(range(22, 30)))], into)
        assert (first.rows, second.rows, second.gaps, second.missing_ids, second.rebuilt) == (20, 8, 1, 2, False)
        after = contents(into)
        assert JournalReader(into).id == id_
        segments = [name for name in before if name.endswith(".arrows")]
        assert {name: after[name] for name in segments} == {name: before[name] for name in segments}
        assert [entry.meta.sequence for entry in JournalReader(into).entries()] == list(range(1, 6))
        assert held(into)["trade_id"].to_list() == [*range(20), *range(22, 30)]

    def test_what_belongs_among_what_is_there_makes_the_journal_anew_under_a_new_id(self, tmp_path: Path) -> None:
        into = tmp_path / "journal"
        bring([write(tmp_path / "1.parquet", trades([1, 2, 6, 7]))], into)
        id_ = JournalReader(into).id
        report = bring([write(tmp_path / "2.parquet", trades([3, 4, 5]))], into)
        assert (report.rows, report.duplicates, report.rebuilt, report.gaps) == (3, 0, True, 0)
        assert JournalReader(into).id != id_, "who has read the old one begins anew"
        assert held(into)["trade_id"].to_list() == list(range(1, 8))

    def test_nothing_new_changes_nothing(self, tmp_path: Path) -> None:
        into, file = tmp_path / "journal", write(tmp_path / "1.parquet", trades(range(20)))
        bring([file], into)
        before = contents(into)
        report = bring([file, file], into)
        assert (report.rows, report.duplicates, report.rebuilt) == (0, 40, False)
        assert contents(into) == before

    def test_another_symbol_of_the_same_time_comes_side_by_side(self, tmp_path: Path) -> None:
        into = tmp_path / "journal"
        for symbol in ("BTCUSDT", "ETHUSDT"):
            bring([write(tmp_path / f"{symbol}.parquet", trades(range(30), symbol))], into)
        assert held(into)["symbol"].to_list() == ["BTCUSDT", "ETHUSDT"] * 30

    def test_a_journal_whose_writer_was_killed(self, tmp_path: Path) -> None:
        into = tmp_path / "journal"
        bring([write(tmp_path / "1.parquet", trades(range(20)))], into)
        (newest,) = into.glob("*.arrows")
        newest.write_bytes(newest.read_bytes()[:-100])
        (into / "state.json").unlink()
        report = bring([write(tmp_path / "2.parquet", trades(range(14, 30)))], into)
        assert report.rows == 30 - held_before(20), "the torn batch is read from the file again where it has it"
        assert held(into)["trade_id"].to_list() == list(range(30))


def held_before(rows: int) -> int:
    """Of `rows` in batches of 7 the last was torn."""
    return rows - rows % 7


class TestConflicts:
    def twins(self, tmp_path: Path) -> list[Path]:
        later = trades([1, 2]).with_columns(pl.col("ts_event").dt.offset_by("9s"), price=pl.lit(9.0))
        return [write(tmp_path / "a.parquet", trades([0, 1])), write(tmp_path / "b.parquet", later)]

    def test_a_conflict_ends_the_import_with_nothing_left(self, tmp_path: Path) -> None:
        files = self.twins(tmp_path)
        for order in permutations(files):
            with pytest.raises(InputError, match=r"BTCUSDT 1 is two trades: .*a\.parquet.* and .*b\.parquet"):
                bring(list(order), tmp_path / "new" / "journal")
        assert names(tmp_path) == {"a.parquet", "b.parquet"}

    def test_a_conflict_with_what_is_there_leaves_it_as_it_was(self, tmp_path: Path) -> None:
        (first, second), into = self.twins(tmp_path), tmp_path / "journal"
        bring([first], into)
        before = contents(into)
        with pytest.raises(InputError, match=r"BTCUSDT 1 is two trades: .*\(a|journal\)"):
            bring([second], into)
        assert contents(into) == before
        assert names(tmp_path) == {"a.parquet", "b.parquet", "journal"}

    def test_skipped_the_earlier_is_kept_whatever_the_order(self, tmp_path: Path) -> None:
        for number, order in enumerate(permutations(self.twins(tmp_path))):
            together, apart = tmp_path / f"together{number}", tmp_path / f"apart{number}"
            report = bring(list(order), together, on_bad="skip")
            assert (report.rows, report.duplicates, report.conflicts) == (3, 0, 1)
            assert "BTCUSDT 1 is two trades" in report.left_out[1]
            for file in order:
                bring([file], apart, on_bad="skip")
            for folder in (together, apart):
                assert held(folder).filter(trade_id=1)["price"].to_list() == [101.0]
                assert held(folder)["trade_id"].to_list() == [0, 1, 2]


class TestNothingLeft:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return write(tmp_path / "file.parquet", trades(range(20)))

    def test_of_a_wrong_file(self, tmp_path: Path, file: Path) -> None:
        wrong = tmp_path / "wrong.csv"
        wrong.write_text("no,trades\n")
        with pytest.raises(InputError, match=r"wrong\.csv"):
            bring([file, wrong], tmp_path / "a" / "b" / "journal")
        assert names(tmp_path) == {"file.parquet", "wrong.csv"}

    def test_of_a_symbol_that_is_not_there(self, tmp_path: Path, file: Path) -> None:
        with pytest.raises(InputError, match="no trades of ETHUSDT"):
            bring([file], tmp_path / "journal", symbol="ETHUSDT")
        assert names(tmp_path) == {"file.parquet"}

    @pytest.mark.parametrize("interruption", [KeyboardInterrupt, JournalError("the disk is full")])
    def test_of_an_interruption_in_the_middle_of_writing(
        self, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
    ) -> None:
        into = tmp_path / "journal"
        bring([file], into)
        before = contents(into)
        more = write(tmp_path / "more.parquet", trades(range(50)))
        put, calls = Journal.append, iter(range(9))

        def append(journal: Journal, *arguments: object) -> object:
            if next(calls) == 3:
                raise interruption
            return put(journal, *arguments)

        monkeypatch.setattr(Journal, "append", append)
        with pytest.raises((KeyboardInterrupt, JournalError)):
            bring([more], into)
        assert contents(into) == before
        assert names(tmp_path) == {"file.parquet", "more.parquet", "journal"}

    def test_of_an_import_that_was_killed(self, tmp_path: Path, file: Path) -> None:
        scratch = tmp_path / ".journal.importing"
        scratch.mkdir()
        (scratch / "00000000000000000001.arrows").write_bytes(b"half")
        bring([file], tmp_path / "journal")
        assert names(tmp_path) == {"file.parquet", "journal"}

    def test_killed_between_the_two_renames(self, tmp_path: Path, file: Path) -> None:
        into = tmp_path / "journal"
        bring([file], into)
        into.rename(tmp_path / ".journal.replaced")
        report = bring([write(tmp_path / "more.parquet", trades(range(10, 25)))], into)
        assert (report.rows, report.duplicates) == (5, 10)
        assert held(into)["trade_id"].to_list() == list(range(25))
        assert names(tmp_path) == {"file.parquet", "more.parquet", "journal"}

    def test_of_a_disk_that_refuses_the_second_rename(
        self, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        into = tmp_path / "journal"
        bring([file], into)
        before, rename = contents(into), Path.rename

        def refuse(path: Path, target: Path) -> Path:
            if path.name == ".journal.importing":
                raise OSError(28, "No space left on device")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", refuse)
        with pytest.raises(JournalError, match="the disk is full"):
            bring([write(tmp_path / "more.parquet", trades(range(50)))], into)
        assert contents(into) == before
        assert names(tmp_path) == {"file.parquet", "more.parquet", "journal"}

    def test_two_at_once(self, tmp_path: Path, file: Path) -> None:
        into = tmp_path / "journal"
        with replacing(into, SCHEMA), pytest.raises(JournalError, match="another import works"):
            bring([file], into)
        bring([file], into)


class TestServices:
    @pytest.fixture
    def service(self, tmp_path: Path) -> Iterator[tuple[Path, list[Path]]]:
        """A journal as a service leaves it, and a file with rows below and above its ids."""
        folder = tmp_path / "binance_spot-50001"
        with Journal.open(folder, SCHEMA) as journal:
            journal.append(to_record_batch(trades(range(5, 10)), SCHEMA), BatchMeta(watermark_us=1))
        yield folder, [write(tmp_path / "file.parquet", trades(range(20)))]
        assert held(folder)["trade_id"].to_list() == list(range(5, 10)), "never touched"

    def test_a_journal_that_a_service_holds_is_refused(self, service: tuple[Path, list[Path]]) -> None:
        folder, files = service
        with Journal.open(folder, SCHEMA), pytest.raises(JournalLockedError, match="in use by process"):
            bring(files, folder)

    def test_a_journal_with_consumers_is_refused(self, service: tuple[Path, list[Path]]) -> None:
        folder, files = service
        with Journal.open(folder, SCHEMA) as journal:
            journal.register("raven_tibs-50052", 0)
        with pytest.raises(InputError, match=r"the journal of a service.*raven_tibs-50052"):
            bring(files, folder)

    def test_a_folder_of_a_service_is_refused(self, service: tuple[Path, list[Path]]) -> None:
        folder, files = service
        (folder / "wanted.json").write_text("{}")
        with pytest.raises(InputError, match=r"the journal of a service.*wanted\.json"):
            bring(files, folder)

    def test_folders_that_are_no_journal(self, tmp_path: Path) -> None:
        file = write(tmp_path / "file.parquet", trades(range(20)))
        other = tmp_path / "home"
        other.mkdir()
        (other / "thesis.txt").write_text("years of work")
        with pytest.raises(InputError, match=r"other things in it: thesis\.txt"):
            bring([file], other)
        with pytest.raises(InputError, match="is a file"):
            bring([file], file)
        assert names(tmp_path) == {"file.parquet", "home"}
        assert names(other) == {"thesis.txt"}
        (tmp_path / "empty").mkdir()
        assert bring([file], tmp_path / "empty").rows == 20

    def test_a_journal_of_another_venue(self, tmp_path: Path) -> None:
        futures, spot = (
            write(tmp_path / f"{venue}.parquet", trades(range(20)), venue)
            for venue in ("BINANCE_FUTURES", "BINANCE_SPOT")
        )
        bring([futures], tmp_path / "journal")
        before = contents(tmp_path / "journal")
        with pytest.raises(JournalError, match="venue 'BINANCE_FUTURES'"):
            bring([spot], tmp_path / "journal")
        assert contents(tmp_path / "journal") == before


class TestCases:
    """What is hard about order, repeats and conflicts, each with its right value."""

    def test_hole(self, shared_cases: Path, tmp_path: Path) -> None:
        files = sorted((shared_cases / "hole").glob("*.csv"))
        assert len(files) == 2
        for number, order in enumerate(permutations(files)):
            together, apart = tmp_path / f"together{number}", tmp_path / f"apart{number}"
            report = bring(list(order), together)
            assert (report.rows, report.duplicates, report.gaps) == (7, 0, 0)
            reports = [bring([file], apart) for file in order]
            assert [sum(report.rows for report in reports), *(report.duplicates for report in reports)] == [7, 0, 0]
            for recording in (together, apart):
                self.hole_is_whole(raven.read_trades(recording))
            self.hole_is_whole(raven.read_trades(*order))
            self.hole_is_whole(pl.concat(raven.replay(*order)))

    def hole_is_whole(self, found: pl.DataFrame) -> None:
        assert found["trade_id"].to_list() == list(range(1, 8))
        days = raven.time_bars(found, "1d", venue="BINANCE_FUTURES", partial=True)
        assert dict(days.select(pl.col("open_time").dt.strftime("%F"), "volume").iter_rows()) == {
            "2022-04-23": 2.0, "2022-04-24": 3.0, "2022-04-25": 2.0,
        }  # fmt: skip

    def test_unordered(self, shared_cases: Path, tmp_path: Path) -> None:
        (capture,) = (shared_cases / "unordered").iterdir()
        report = bring([capture], tmp_path / "journal")
        assert (report.rows, report.duplicates, report.gaps) == (9, 0, 0)
        for found in (
            held(tmp_path / "journal"),
            pl.concat(raven.replay(capture)),
            raven.read_trades(capture).sort("trade_id"),
        ):
            assert found["trade_id"].to_list() == list(range(140, 149))
        for found in (raven.read_trades(capture), held(tmp_path / "journal")):
            minute = raven.time_bars(found, "1m")
            assert minute.select(pl.col("open_time").dt.strftime("%H:%M"), "volume").rows() == [("14:51", 8.0)]

    def test_dup(self, shared_cases: Path, tmp_path: Path) -> None:
        (archive,) = (shared_cases / "dup").iterdir()
        report = bring([archive], tmp_path / "journal")
        assert (report.rows, report.duplicates, report.conflicts) == (6, 5, 0)
        assert report.left_out == ["5 rows left out: repeats of trades that are there, id and content"]
        with pytest.warns(RecordingWarning, match="5 rows left out: repeats"):
            replayed = pl.concat(raven.replay(archive))
        for found in (held(tmp_path / "journal"), replayed):
            assert found["trade_id"].to_list() == list(range(1000, 1006))
            assert raven.time_bars(found, "1m", partial=True)["volume"].sum() == 16.0
        with pytest.warns(RecordingWarning, match="5 rows left out: repeats of trades that are there, id and content"):
            read = raven.read_trades(archive)
        assert read["trade_id"].to_list() == list(range(1000, 1006))
        with pytest.warns(DroppedRowsWarning, match="5 rows were left out: repeats of trades that are there"):
            bars = raven.time_bars(pl.concat(raven.iter_trades(archive)), "1m", partial=True)
        assert bars["volume"].sum() == 16.0

    def test_twins(self, shared_cases: Path, tmp_path: Path) -> None:
        """Spot's aggregate trades are no series that its source collects; the same rows as trades are in conflict."""
        files = sorted((shared_cases / "twins").glob("*.csv"))
        with pytest.raises(InputError, match="is of event aggTrade, not trade"):
            bring(files, tmp_path / "journal")
        rewritten = [write(tmp_path / f"{file.stem}.parquet", raven.read_trades(file)) for file in files]
        said = (
            r"ZILBTC 12027555 is two trades: buy 824 at 2\.38e-06, 2021-02-28 23:59:37\.324000 \(ZILBTC-.*02-28\.parquet\) "
            r"and buy 19332 at 2\.39e-06, 2021-03-01 00:00:23\.276000 \(ZILBTC-.*03-01\.parquet\)"
        )
        for order in permutations(rewritten):
            with pytest.raises(InputError, match=said):
                bring(list(order), tmp_path / "journal")
            with pytest.raises(InputError, match=said):
                raven.replay(*order)
            report = bring(list(order), tmp_path / "skipped", on_bad="skip")
            assert report.conflicts == 1
            assert held(tmp_path / "skipped")["quantity"].to_list() == [296.0, 824.0, 6277.0]
            with pytest.raises(InputError, match=said):
                raven.read_trades(*order)
            with pytest.warns(RecordingWarning, match="1 row left out: conflicts, another trade has the id: ZILBTC 12"):
                assert raven.read_trades(*order, on_bad="skip").height == 3
        assert not (tmp_path / "journal").exists()
        both = pl.concat(map(raven.read_trades, files))
        with pytest.raises(InputError, match=r"a conflict: ZILBTC 12027555 is two trades: buy 824 at .*on_bad='skip'"):
            raven.time_bars(both)
        with pytest.warns(DroppedRowsWarning, match="1 row was left out: conflicts, another trade has their trade_id"):
            assert raven.time_bars(both, partial=True, on_bad="skip")["total_ticks"].sum() == 3

    def test_interleaved(self, shared_cases: Path, tmp_path: Path) -> None:
        (archive,) = (shared_cases / "interleaved").iterdir()
        report = bring([archive], tmp_path / "journal")
        assert (report.rows, report.duplicates, report.gaps, report.missing_ids) == (8, 0, 1, 796)
        for found in (held(tmp_path / "journal"), pl.concat(raven.replay(archive)), raven.read_trades(archive)):
            assert found["trade_id"].to_list() == [100, 101, 102, 103, 900, 901, 902, 903]
        bars = raven.time_bars(held(tmp_path / "journal"), "1m", partial=True)
        assert bars["volume"].to_list() == pytest.approx([1.0, 0.04])

    def test_zero(self, shared_cases: Path, tmp_path: Path) -> None:
        (archive,) = (shared_cases / "zero").iterdir()
        for refused in (lambda: bring([archive], tmp_path / "journal"), lambda: raven.replay(archive)):
            with pytest.raises(InputError, match=r"line 2.*bad_quantity.*on_bad='skip'"):
                refused()
        assert not names(tmp_path)
        report = bring([archive], tmp_path / "journal", on_bad="skip")
        assert (report.rows, report.skipped, report.gaps, report.missing_ids) == (2, {"bad_quantity": 2}, 1, 1)
        with pytest.warns(RecordingWarning, match="2 rows left out: bad_quantity"):
            replayed = pl.concat(raven.replay(archive, on_bad="skip"))
        for found in (held(tmp_path / "journal"), replayed):
            assert found["trade_id"].to_list() == [501, 503]
            assert raven.time_bars(found, "1m", partial=True)["volume"].to_list() == [1.5, 2.0]
        with pytest.raises(InputError, match=r"line 2.*bad_quantity.*on_bad='skip'"):
            raven.read_trades(archive)
        with pytest.warns(RecordingWarning, match="2 bad_quantity"):
            assert raven.read_trades(archive, on_bad="skip")["trade_id"].to_list() == [501, 503]


class TestReplay:
    """`raven.replay` takes what `raven replay` takes."""

    def test_patterns_and_several(self, tmp_path: Path) -> None:
        write(tmp_path / "BTCUSDT-1.parquet", trades(range(10, 20)))
        write(tmp_path / "BTCUSDT-2.parquet", trades(range(10)))
        assert_frame_equal(pl.concat(raven.replay(str(tmp_path / "*.parquet"))), trades(range(20)))
        some = raven.replay(tmp_path / "BTCUSDT-1.parquet", tmp_path / "BTCUSDT-2.parquet", end="2026-01-01T00:00:01")
        assert_frame_equal(pl.concat(some), trades(range(4)))
        with pytest.raises(InputError, match="no file matches"):
            raven.replay(str(tmp_path / "*.csv"))
        with pytest.raises(InputError, match="no recording was named"):
            raven.replay()

    def test_journals(self, tmp_path: Path) -> None:
        for name, ids in (("one", range(10)), ("two", range(10, 30))):
            bring([write(tmp_path / f"{name}.parquet", trades(ids))], tmp_path / name)
        batches = list(raven.replay(tmp_path / "one", tmp_path / "two"))
        assert [batch.height for batch in batches] == [7, 3, 7, 7, 6], "as they were cut"
        assert_frame_equal(pl.concat(batches), trades(range(30)))
        with pytest.raises(InputError, match="cannot be replayed together"):
            raven.replay(tmp_path / "one", tmp_path / "two.parquet")
        bring([write(tmp_path / "f.parquet", trades([1]), "BINANCE_FUTURES")], tmp_path / "futures")
        with pytest.raises(InputError, match="not of one stream"):
            raven.replay(tmp_path / "one", tmp_path / "futures")
