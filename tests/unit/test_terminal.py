"""What a person sees at 80, 100, 120 and 200 columns: whole words and numbers, and the renderings as they are kept.

A change that is meant is written with `python -m tests.unit.terminal_scenes`, and looked at.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from raven.cli.figures import price, shared, short_specs
from raven.cli.growth import growth_sentences
from raven.cli.tables import Layout, fewer, sentence, table_lines
from raven.rpc.pb import control_pb2
from tests.unit.terminal_scenes import (
    DISK_PROBLEM,
    LOST,
    MARKET,
    SCENES,
    SIZES,
    TIB_SPEC,
    answers,
    dashboard_of,
    path_of,
    rendering,
)

KEPT = {
    "up": ["simulate", "Trades", "Time bars", "Tick imbalance bars", "Services"],
    "status": ["Services", "binance_spot", "bar_persistence", "Stores", "delta/trades", "Since they started"],
    "list": [*(symbol for _, symbol, *_ in MARKET), "raven_timebar-50051", "tick_persistence-50091", "BINANCE_FUTURES"],
}
GIB = 2**30


@pytest.mark.parametrize("with_problem", [False, True])
@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("scene", SCENES)
class TestRenderings:
    def test_they_are_as_they_were_looked_at(self, scene: str, width: int, with_problem: bool) -> None:
        kept = path_of(scene, width, with_problem=with_problem).read_text()
        assert rendering(scene, width, with_problem=with_problem) == kept

    def test_nothing_is_cut_off_or_too_wide(self, scene: str, width: int, with_problem: bool) -> None:
        text = rendering(scene, width, with_problem=with_problem)
        assert "…" not in text
        assert max(map(cell_len, text.splitlines())) <= width
        assert all(word in text for word in KEPT[scene])
        whole = " ".join(text.split())
        if with_problem and scene != "list":
            assert f"tick_persistence: {DISK_PROBLEM}" in whole, "what is wrong is told whole"
        if with_problem and scene == "up":
            assert f"raven_tibs {LOST}" in whole
            assert "more lines" not in whole
        if scene == "up":
            assert text.count("\n") <= SIZES[width]


def test_into_a_pipe_goes_every_column() -> None:
    lines = [line.plain for line in SCENES["list"](None, with_problem=True)]  # type: ignore[operator]
    assert len(lines) == 2 + len(MARKET) + 1 + 1
    assert "missing ids" in lines[1]
    assert all("user, raven_timebar-50051, raven_tibs-50052, tick_persistence-50091" in line for line in lines[2:8])


@pytest.mark.parametrize("width", range(40, 200, 7))
@pytest.mark.parametrize("height", [12, 24, 60])
def test_the_dashboard_fits_any_terminal(width: int, height: int) -> None:
    for with_problem in (False, True):
        lines = dashboard_of(with_problem=with_problem).view(width, height)
        assert len(lines) <= height
        assert max(line.cell_len for line in lines) <= width
        assert not any("…" in line.plain for line in lines)


class TestTable:
    LAYOUT = Layout(
        "Stores", ("store", "rows>", "age>", "why"), leaving=("age", "rows"), wraps=("why",)
    )  # fmt: skip
    ROWS = (["influx/trades", "12,345", "", "no space left on the device"], ["delta", "7", "", ""])

    def shown(self, width: int | None, layout: Layout = LAYOUT) -> list[str]:
        return [line.plain for line in table_lines(layout, self.ROWS, width)]

    def test_where_there_is_room_it_is_whole(self) -> None:
        assert self.shown(80) == self.shown(None) == [
            "Stores",
            "store            rows  age  why",
            "influx/trades  12,345       no space left on the device",
            "delta               7",
        ]  # fmt: skip

    def test_an_empty_column_is_left_out_before_anything_is_broken(self) -> None:
        assert self.shown(50)[1:] == [
            "store            rows  why",
            "influx/trades  12,345  no space left on the device",
            "delta               7",
        ]

    def test_then_words_go_on_in_further_lines(self) -> None:
        assert self.shown(40) == [
            "Stores",
            "store            rows  why",
            "influx/trades  12,345  no space left on",
            "                       the device",
            "delta               7",
        ]

    def test_then_columns_leave_and_are_named(self) -> None:
        assert self.shown(30)[:3] == ["Stores  wider: rows", "store          why", "influx/trades  no space left"]
        assert self.shown(27)[0] == "Stores  wider: rows"

    def test_what_is_narrower_still_is_paragraphs(self) -> None:
        assert " ".join(" ".join(self.shown(16)).split()) == (
            "Stores influx/trades rows 12,345, why no space left on the device delta rows 7"
        )

    def test_a_column_goes_below_its_row_before_others_leave(self) -> None:
        below = Layout("Stores", self.LAYOUT.columns, self.LAYOUT.leaving, below="why")
        assert self.shown(40, below) == [
            "Stores",
            "store            rows",
            "influx/trades  12,345",
            "  why no space left on the device",
            "delta               7",
        ]

    @given(
        st.lists(st.lists(st.text("ab 币人[]\\", max_size=30), min_size=4, max_size=4), min_size=1, max_size=4),
        st.integers(10, 120),
    )
    def test_no_letter_is_lost_of_what_stays(self, rows: list[list[str]], width: int) -> None:
        escaped = [["x", *(cell.replace("[", "(") for cell in row)] for row in rows]
        layout = Layout("T", ("a", "b>", "c", "d", "e"), wraps=("c", "e"))
        lines = table_lines(layout, escaped, width)
        assert max(line.cell_len for line in lines) <= width

        def letters(text: str) -> int:
            return sum(letter in "币人" for letter in text)

        assert sum(letters(line.plain) for line in lines) == sum(letters(cell) for row in escaped for cell in row)

    def test_what_others_wrote_moves_no_cursor(self) -> None:
        lines = table_lines(Layout("T", ("symbol",)), [["A\x1b[2J\nB"]], 80)
        assert [line.plain for line in lines] == ["T", "symbol", r"A\x1b[2J\nB"]


def test_a_sentence_is_broken_between_words_and_indented() -> None:
    lines = sentence("[red]delta[/]: no space left on the device", 20)
    assert [line.plain for line in lines] == ["delta: no space", "  left on the device"]
    assert [line.plain for line in sentence("[red]delta[/]: no space left", None)] == ["delta: no space left"]


def test_lines_that_do_not_fit_are_counted() -> None:
    lines = sentence("one two three four", 7)
    assert [line.plain for line in fewer(lines, 2, "below")] == ["one", "3 more lines below"]
    assert fewer(lines, 4, "below") == lines


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (112_345.1, "112,345.10"), (12.3456, "12.3456"), (1.5, "1.5000"), (0.1234, "0.123400"),
        (0.00001053, "0.00001053"), (1e-10, "0.0000000001"), (1.8e9, "1,800,000,000.00"), (0.1 + 0.2, "0.3000000000"),
    ],
)  # fmt: skip
def test_a_price_has_all_its_digits(number: float, shown: str) -> None:
    assert price(number) == shown
    assert float(price(number).replace(",", "")) == pytest.approx(number)


def test_a_spec_is_short_only_where_it_is_the_only_one_of_its_kind() -> None:
    other = TIB_SPEC.replace("100", "200")
    assert short_specs(["1m", "tick-100", TIB_SPEC]) == {"1m": "1m", "tick-100": "tick-100", TIB_SPEC: "tib"}
    assert short_specs([TIB_SPEC, other]) == {TIB_SPEC: TIB_SPEC, other: other}


@pytest.mark.parametrize(
    ("room", "given"), [(0, [2, 1, 1]), (4, [2, 1, 1]), (7, [3, 2, 2]), (9, [3, 3, 3]), (99, [3, 6, 6])]
)
def test_lines_are_shared(room: int, given: list[int]) -> None:
    assert shared([3, 6, 6], [2, 1, 1], room) == given


class TestGrowth:
    def said(self, growth: int, hosts: dict[str, str] | None = None) -> list[str]:
        counters = {"data_bytes": GIB, "disk_free_bytes": 100 * GIB, "data_daily_growth_bytes": growth}
        made = {name: control_pb2.StatusResponse(counters=counters) for name in ("binance_spot", "raven_tibs")}
        return growth_sentences({**made, "raven_timebar": control_pb2.StatusResponse()}, hosts)

    def test_it_is_what_all_services_grow_by_and_how_long_what_is_free_will_do(self) -> None:
        assert self.said(5 * GIB) == [
            "Raven's data take 2.0 GiB and grow by 10.0 GiB a day: the 100.0 GiB that are free will do for 10 days."
        ]
        assert "for 24 hours" in self.said(50 * GIB)[0]
        assert "for more than 1,000 days" in self.said(2**20)[0]
        assert self.said(0) == ["Raven's data take 2.0 GiB and do not grow; 100.0 GiB of the disk are free."]

    def test_each_host_has_its_disk(self) -> None:
        first, second = self.said(5 * GIB, {"binance_spot": "a", "raven_tibs": "b"})
        assert "1.0 GiB and grow by 5.0 GiB a day: the 100.0 GiB that are free will do for 20 days. (a)" in first
        assert second.endswith("(b)")

    def test_before_it_was_seen_for_long_enough_nothing_is_said(self) -> None:
        found = answers(with_problem=False)
        for answer in found.values():
            del answer.counters["data_daily_growth_bytes"]
        assert growth_sentences(found) == []
