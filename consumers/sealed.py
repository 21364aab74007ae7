"""What a handler says, sealed before it leaves the worker (penstock.core.sealing)."""

from collections.abc import Callable
from typing import Final

import msgspec

from penstock.consumers.context import Report
from penstock.consumers.outcomes import Failure
from penstock.core.events import Needs, Submitted
from penstock.core.sealing import Seals, opened

_read_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_OPEN_FIELDS: Final = frozenset({"fraction"})


def open_job(job: Submitted, seals: Seals) -> Submitted:
    """What the job is to do, opened: its payload and what it is handed over. Raises Unsealable."""
    needs = job.needs
    if needs is not None:
        results = {
            name: opened(result, needs.types.get(name, ""), "result", seals)
            for name, result in needs.results.items()
        }
        needs = Needs(results, needs.types, needs.unmet)
    return msgspec.structs.replace(job, payload=opened(job.payload, job.type, "payload", seals), needs=needs)


def sealed_failure(why: Failure, type: str, seals: Seals) -> Failure:
    """A failure whose words are sealed; its class and what it means for the job stay legible."""
    return msgspec.structs.replace(
        why,
        message=seals.seal(why.message.encode(), type, "message"),
        traceback=seals.seal(why.traceback.encode(), type, "traceback") if why.traceback else "",
    )


def sealing(report: Callable[[Report], None], type: str, seals: Seals) -> Callable[[Report], None]:
    """A way to report that seals all but how far the work is."""

    def say(said: Report) -> None:
        fields = _read_fields(said.body)
        for name in fields.keys() - _OPEN_FIELDS:
            fields[name] = _sealed_field(fields[name], name, type, seals)
        report(Report(said.tag, msgspec.json.encode(fields)))

    return say


def _sealed_field(value: msgspec.Raw, name: str, type: str, seals: Seals) -> msgspec.Raw:
    """Text is sealed as text, and `data` as the JSON it is."""
    plain = value if name == "data" else msgspec.json.decode(value, type=str).encode()
    return seals.seal_json(plain, type, name)
