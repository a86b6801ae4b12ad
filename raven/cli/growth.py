"""How much Raven's own data grow, and how long what is free on the disk will do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from raven.cli import output
from raven.rpc.pb import control_pb2

LEAST_GROWTH_BYTES: Final = 2**20
"""What grows by less in a day does not fill a disk."""


def growth_sentences(
    answers: Mapping[str, control_pb2.StatusResponse], hosts: Mapping[str, str] | None = None
) -> list[str]:
    """A sentence for each host whose services have seen long enough how their data grow.

    `hosts` says where each service is; without it all are on one.
    """
    found: dict[str, list[control_pb2.StatusResponse]] = {}
    for name, answer in answers.items():
        if "data_daily_growth_bytes" in answer.counters:
            found.setdefault((hosts or {}).get(name, ""), []).append(answer)
    return [
        f"{sentence} ({host})" if len(found) > 1 else sentence
        for host, those in found.items()
        for sentence in [_sentence(those)]
    ]


def _sentence(answers: list[control_pb2.StatusResponse]) -> str:
    taken = sum(answer.counters["data_bytes"] for answer in answers)
    growth = sum(answer.counters["data_daily_growth_bytes"] for answer in answers)
    free = min(answer.counters["disk_free_bytes"] for answer in answers)
    begin = f"Raven's data take {output.size(taken)} and"
    if growth < LEAST_GROWTH_BYTES:
        return f"{begin} do not grow; {output.size(free)} of the disk are free."
    days = free / growth
    shown = "more than 1,000 days" if days > 1000 else output.counted(int(days), "day") if days >= 2 else (
        output.counted(int(days * 24), "hour")
    )  # fmt: skip
    return f"{begin} grow by {output.size(growth)} a day: the {output.size(free)} that are free will do for {shown}."
