"""What `penstock replay export` and `import` do, with a bar that says how far they are."""

from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.core.connection import answering
from penstock.core.positions import milliseconds
from penstock.core.settings import Settings
from penstock.projections.details import instant
from penstock.projections.replay.exporting import Asked, export
from penstock.projections.replay.files import STANDARD
from penstock.projections.replay.importing import bring_in
from penstock.projections.replay.wire import Manifest
from penstock.ui.output import print_facts, print_json
from penstock.ui.replay_output import give_up_output
from penstock.ui.replay_search import bar


async def run_export(settings: Settings, asked: Asked, name: str, *, as_json: bool) -> None:
    """Write it, and say what was written (nothing where it goes into a pipe). Raises Unavailable."""
    with answering(), bar(None) as progress:
        progress.begin(asked.queue)
        try:
            done = await export(settings, asked, name, progress.at)
        except OSError as error:
            if name != STANDARD:
                raise
            give_up_output(error)
            return
        progress.say(done.note)
    if name == STANDARD:
        return
    if as_json:
        print_json({"file": name, **_told(done.manifest)})
    else:
        print_facts([("file", name), *_facts(done.manifest)])


async def run_import(settings: Settings, names: Sequence[str], queue: str, *, as_json: bool) -> None:
    """Put them in their place, and say where that is."""
    with answering(), bar(None) as progress:
        progress.begin(queue or names[0])
        imported = await bring_in(settings, names, queue, progress.at)
    if as_json:
        print_json({"queue": imported.queue, "events": imported.events, "of": _told(imported.of)})
    else:
        rest = [(name, value) for name, value in _facts(imported.of) if name not in ("events", "sha256")]
        print_facts([("into", imported.queue), ("events", imported.events), *rest])


def _told(manifest: Manifest) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(manifest)
    return {name: value for name, value in told.items() if name not in ("format", "base")}


def _facts(manifest: Manifest) -> list[tuple[str, Any]]:
    return [
        ("queue", manifest.queue),
        ("job", manifest.job),
        ("from", _place(manifest.first)),
        ("to", _place(manifest.last)),
        ("events", manifest.events),
        ("epoch", manifest.epoch),
        ("redacted", ", ".join(manifest.redacted)),
        ("sha256", manifest.sha256),
    ]


def _place(position: str) -> str:
    return f"{instant(milliseconds(position))}  {position}" if position else ""
