"""What waits to be said in the next cycle: finished attempts, progress and log lines.

Progress is coalesced: of what a handler says between two notes only the latest is kept, and the
longer an attempt talks, the rarer its notes, so that a job's history stays small enough to show:
about 500 notes in ten minutes, 1,200 in an hour, 6,000 in a day.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

import msgspec

from penstock.consumers.context import Report
from penstock.core.dispatch import Delivery, Finished, Note

SPACING_S: Final = 0.25
SPACING_GROWS_EVERY: Final = 50
MAX_NOTE_BYTES: Final = 64 * 1024


class _Voice(msgspec.Struct):
    """What one running attempt has said and not yet got out."""

    delivery: Delivery
    progress: bytes | None = None
    lines: list[bytes] = []
    notes: int = 0
    next_at: float = 0


class Outbox:
    """Collects on the event loop; `take_*` empty it. `ring` is called when a cycle is due."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring: Final = ring
        self._finished: list[Finished] = []
        self._voices: dict[tuple[int, bytes], _Voice] = {}

    def __bool__(self) -> bool:
        return bool(self._finished) or any(self._due(voice) for voice in self._voices.values())

    def finish(self, finished: Finished) -> None:
        """An attempt ended."""
        self._finished.append(finished)
        self._ring()

    def say(self, delivery: Delivery, report: Report) -> None:
        """A running attempt says something."""
        key = (delivery.lane, delivery.entry)
        voice = self._voices.get(key)
        if voice is None:
            voice = self._voices[key] = _Voice(delivery)
        if report.tag == "progressed":
            voice.progress = report.body
        else:
            voice.lines.append(report.body)
        if self._due(voice):
            self._ring()

    @property
    def unreported(self) -> list[Finished]:
        """Attempts that ended and were not yet taken."""
        return self._finished

    def take_finished(self) -> list[Finished]:
        """Attempts that ended since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def take_notes(self, finished: list[Finished]) -> list[Note]:
        """Notes that are due, and the last words of attempts that end in the same cycle."""
        if not self._voices:
            return []
        notes: list[Note] = []
        for end in finished:
            voice = self._voices.pop((end.lane, end.entry), None)
            if voice is not None:
                notes += _notes(voice)
        now = monotonic()
        for voice in self._voices.values():
            if self._due(voice):
                notes += _notes(voice)
                voice.notes += 1
                voice.next_at = now + SPACING_S * (1 + voice.notes // SPACING_GROWS_EVERY)
        return notes

    def _due(self, voice: _Voice) -> bool:
        return (voice.progress is not None or bool(voice.lines)) and voice.next_at <= monotonic()


def _notes(voice: _Voice) -> list[Note]:
    said = [("logged", line) for line in voice.lines]
    if voice.progress is not None:
        said.append(("progressed", voice.progress))
    voice.progress, voice.lines = None, []
    delivery = voice.delivery
    return [
        Note(delivery.lane, delivery.entry, delivery.job, tag, body)
        for tag, body in said
        if len(body) <= MAX_NOTE_BYTES
    ]
