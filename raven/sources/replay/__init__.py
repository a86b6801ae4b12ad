"""Replaying recordings as a source: journals batch for batch, other recordings cut as a live source would cut them."""

from __future__ import annotations

from raven.sources.replay.opening import open_recording
from raven.sources.replay.recording import Choice, Recorded, Recording

__all__ = ["Choice", "Recorded", "Recording", "open_recording"]
