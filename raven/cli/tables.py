"""Tables and sentences as lines of a terminal: they know how wide it is, and cut nothing off.

Where a table is too wide, first its empty columns are left out, then long words go on in further lines, there or below
their row, then the columns that its layout names leave in that order; what is left out is named beside the title.
Where even the rest is too wide, each row is a paragraph. Without a width (a pipe) every row is one line with every
column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from raven.telemetry.logs import CONTROL

BETWEEN: Final = "  "
INDENT: Final = "  "
LEAST_WRAPPED: Final = 12
"""A column is not made narrower than this, or than its longest word while others can leave."""
LEAST_BESIDE: Final = 30
"""A column that may go below its row does before it is narrower than this."""
_WRAPPING: Final = Console(width=1)  # wrapping text asks for a console, and takes nothing from it


@dataclass(frozen=True, slots=True)
class Layout:
    """What a table shows and how it gets narrower.

    - `columns`: their names; one that ends in `>` is right-aligned.
    - `leaving`: those that are left out where it is too wide, in this order; a tuple leaves together.
    - `wraps`: the columns whose words may go on in further lines; `below`: the one that then may stand below its row.
    """

    title: str
    columns: tuple[str, ...]
    leaving: tuple[str | tuple[str, ...], ...] = ()
    wraps: tuple[str, ...] = ()
    below: str = ""

    def __post_init__(self) -> None:
        unknown = {*self.left(len(self.leaving)), *self.wraps, self.below} - {
            "",
            *(name.rstrip(">") for name in self.columns),
        }
        assert not unknown, unknown

    def left(self, steps: int) -> set[str]:
        """The names of those that left in the first `steps`."""
        return {name for step in self.leaving[:steps] for name in ((step,) if isinstance(step, str) else step)}


def table_lines(layout: Layout, rows: Sequence[Sequence[str]], width: int | None, note: str = "") -> list[Text]:
    """The lines of a table: title and `note`, names, rows; none is wider than `width`. Cells are rich's markup."""
    names = [name.rstrip(">") for name in layout.columns]
    cells = [[cell_text(cell) for cell in row] for row in rows]
    for kept, widths in _choices(layout, names, cells, width):
        used = {at for at in range(len(names)) if any(row[at] for row in rows)}
        below = [at for at in used - set(kept) if names[at] == layout.below]
        missing = [names[at] for at in sorted(used.difference(kept, below))]
        right = {at for at in kept if layout.columns[at].endswith(">")}
        lines = _title(layout.title, note, missing, width)
        lines += _row_lines({at: Text(names[at], style="dim") for at in kept}, widths, right)
        for row in cells:
            lines += _row_lines({at: row[at] for at in kept}, widths, right)
            lines += _told_below(names, row, below, width)
        return lines
    assert width is not None
    lines = _title(layout.title, note, [], width)
    for row in cells:
        lines += [*wrapped(row[0], width), *_told_below(names, row, range(1, len(names)), width)]
    return lines


def cell_text(markup: str) -> Text:
    """A cell or sentence, its control characters made visible: what others wrote moves no cursor."""
    return Text.from_markup(markup.translate(CONTROL))


def sentence(markup: str, width: int | None, style: str = "", *, indent: int = len(INDENT)) -> list[Text]:
    """A sentence in as many lines as it takes, all but the first indented."""
    text = cell_text(markup)
    text.style = style or text.style
    if width is None or text.cell_len <= width:
        return [text]
    first, *rest = wrapped(text, width - indent)
    return [first, *(Text(" " * indent).append_text(line) for line in rest)]


def fewer(lines: Sequence[Text], most: int, more: str) -> list[Text]:
    """At most so many lines; where there are more, the last one says how many, and `more`."""
    if len(lines) <= most:
        return list(lines)
    kept = list(lines[: max(0, most - 1)])
    return [*kept, Text(f"{len(lines) - len(kept)} more lines {more}", style="dim")]


def _choices(
    layout: Layout, names: Sequence[str], cells: Sequence[Sequence[Text]], width: int | None
) -> Iterator[tuple[list[int], dict[int, int]]]:
    """Each choice of columns that fits, with their widths, the best one first."""
    every = list(range(len(names)))
    natural = {at: max([cell_len(names[at]), *(row[at].cell_len for row in cells)]) for at in every}
    if width is None or _total(natural, every) <= width:
        yield every, natural
    used = [at for at in every if at == 0 or any(row[at].plain for row in cells)]
    if width is not None and _total(natural, used) <= width:
        yield used, natural
    words = {at: _longest_word(at, names, cells) for at in every if names[at] in {*layout.wraps, layout.below}}
    beside = {at: min(natural[at], max(LEAST_BESIDE, words[at])) for at in words if names[at] == layout.below}
    steps = len(layout.leaving) + 1
    tries = [
        (count, words | beside, below) for count in range(steps) for below in (*([""] * bool(beside)), layout.below)
    ]
    tries.append((steps - 1, dict.fromkeys(words, LEAST_WRAPPED), layout.below))
    for left, least, below in tries:
        kept = [at for at in used if names[at] not in {*layout.left(left), below}]
        fixed = _total({at: least.get(at, natural[at]) for at in kept}, kept)
        if width is not None and fixed <= width:
            yield kept, _widened(kept, natural, least, width - fixed)


def _widened(kept: Sequence[int], natural: dict[int, int], least: dict[int, int], spare: int) -> dict[int, int]:
    """The widths of the columns, with what is spare given to those that wrap, the shortest first."""
    widths = {at: min(natural[at], least.get(at, natural[at])) for at in kept}
    spare += sum(least.get(at, natural[at]) - widths[at] for at in kept)
    wrapping = sorted((at for at in kept if at in least), key=lambda at: natural[at])
    for position, at in enumerate(wrapping):
        given = min(natural[at] - widths[at], spare // (len(wrapping) - position))
        widths[at] += given
        spare -= given
    return widths


def _total(widths: dict[int, int], kept: Sequence[int]) -> int:
    return sum(widths[at] for at in kept) + len(BETWEEN) * (len(kept) - 1)


def _longest_word(at: int, names: Sequence[str], cells: Sequence[Sequence[Text]]) -> int:
    texts = [names[at], *(row[at].plain for row in cells)]
    return max(LEAST_WRAPPED, *(cell_len(word) for text in texts for word in text.split() or [""]))


def _title(title: str, note: str, missing: Sequence[str], width: int | None) -> list[Text]:
    """The title, with what a wider terminal would show as far as there is room to say it."""
    text = Text(title, style="bold")
    if note:
        text = text.append(note, style="not bold")
    for told in (f"wider: {', '.join(missing)}", f"wider: {len(missing)} more"):
        if missing and (width is None or text.cell_len + len(BETWEEN) + cell_len(told) <= width):
            return [text.append(BETWEEN).append(told, style="not bold dim")]
    return [text] if width is None else wrapped(text, width)


def _row_lines(row: dict[int, Text], widths: dict[int, int], right: set[int]) -> list[Text]:
    parts = {at: wrapped(cell, widths[at]) if cell.cell_len > widths[at] else [cell] for at, cell in row.items()}
    lines = []
    for number in range(max(len(part) for part in parts.values())):
        line = Text()
        for at, part in parts.items():
            cell = part[number] if number < len(part) else Text()
            padding = " " * (widths[at] - cell.cell_len)
            line.append(padding if at in right else "").append_text(cell).append("" if at in right else padding)
            line.append(BETWEEN)
        line.rstrip()
        lines.append(line)
    return lines


def _told_below(names: Sequence[str], row: Sequence[Text], below: Iterable[int], width: int | None) -> list[Text]:
    """Cells that stand below their row, each behind its column's name, indented."""
    told = [Text(f"{names[at]} ", style="dim").append_text(row[at]) for at in below if row[at].plain]
    if not told or width is None:
        return []
    return [Text(INDENT).append_text(line) for line in wrapped(Text(", ").join(told), width - len(INDENT))]


def wrapped(text: Text, width: int) -> list[Text]:
    """The text in lines of at most `width`, broken between words where a word is not too long for that."""
    lines = list(text.wrap(_WRAPPING, max(1, width), overflow="fold")) or [text]
    for line in lines:
        line.rstrip()
    return lines
