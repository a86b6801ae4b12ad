"""`raven replay`: a recording in the place of its venue's source."""

from __future__ import annotations

from pathlib import Path

from raven.batches.schema import TRADE_SCHEMA, stream_schema
from raven.control.plan import VENUES
from raven.control.source_component import SourceComponent
from raven.services import runtime
from raven.services.runtime import Environment, Service
from raven.settings import Settings
from raven.sources.replay import Recording
from raven.sources.replay.source import ReplaySource, Report

FOLDER = "replay"


def settings_of_replay(settings: Settings, data: Path | None) -> Settings:
    """`settings` with a data folder for what is replayed: never the one of what is collected."""
    default = settings.data if settings.data.name == FOLDER else settings.data / FOLDER
    return settings.model_copy(update={"data": (data or default).absolute()})


def build(
    environment: Environment, recording: Recording, *, speed: float | None, once: bool, report: Report
) -> Service:
    """The recording as a source over a journal of its own."""
    schema = stream_schema(TRADE_SCHEMA, kind="trades", venue=recording.venue)
    hub = environment.open_hub(schema, replay=recording.identity)
    source = ReplaySource(recording, hub, speed=speed, once=once, telemetry=environment.telemetry, report=report)
    return Service(SourceComponent(source, environment.wanted), hub, [source.run], facts=source.facts)


def serve(
    recording: Recording, settings: Settings, *, host: str | None, port: int | None, speed: float | None, once: bool,
    report: Report,
) -> None:  # fmt: skip
    """Run until SIGINT or SIGTERM, or with `once` until every consumer has it all; exits 1 when it cannot run."""
    runtime.main(
        VENUES[recording.venue],
        lambda environment: build(environment, recording, speed=speed, once=once, report=report),
        host=host, port=port, settings=settings,
    )  # fmt: skip
