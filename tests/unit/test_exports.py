"""Exports that somebody joined, changed or made up: nothing is overlooked, and nothing of it is believed."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from penstock.core.errors import Refused
from penstock.core.events import Needs, Submitted, decode, encode, read_entry
from penstock.core.keys import Keys
from penstock.projections.replay.files import reading, writing
from penstock.projections.replay.forms import sink, verified
from penstock.projections.replay.redaction import Redaction
from penstock.projections.replay.wire import FORMAT, Manifest, Sum, read_manifest, write_line, write_manifest

KEYS = Keys("penstock").partition("mail")
BODY = encode(Submitted("mail.send", msgspec.Raw(b'{"to":"ada@example.org"}')))


def written(path: Path, first: int = 1000) -> bytes:
    total = Sum()
    with writing(str(path)) as file, sink(path.name, file, KEYS) as out:
        for number in range(40):
            entry = b"%d-%d" % (first, number), [b"event", b"submitted", b"job", b"", b"body", BODY]
            line = write_line(KEYS, entry)
            total.add(entry[0], line)
            out.write(entry, line)
        out.finish(manifest(after="0-0", upto=total.last, **summed(total)))
    return path.read_bytes()


def summed(total: Sum) -> dict[str, Any]:
    return {"events": total.events, "first": total.first, "last": total.last, "sha256": total.sha256}


def manifest(**fields: Any) -> Manifest:
    return Manifest(**{"format": FORMAT, "queue": "mail", "epoch": "e", **fields})


def check(path: Path) -> Manifest:
    with reading(str(path)) as file:
        return verified(path.name, file)


@pytest.mark.parametrize("form", ["ndjson", "ndjson.zst"])
def test_of_two_files_in_one_the_second_is_not_overlooked(form: str, tmp_path: Path) -> None:
    one, two = (written(tmp_path / f"{name}.{form}", first) for name, first in (("a", 1000), ("b", 2000)))
    joined = tmp_path / f"joined.{form}"
    joined.write_bytes(one + two)
    with pytest.raises(Refused, match=r"there is more after the manifest, in line 42"):
        check(joined)


def test_what_stands_behind_a_compressed_file_is_not_overlooked(tmp_path: Path) -> None:
    data = written(tmp_path / "a.ndjson.zst")
    (tmp_path / "more.ndjson.zst").write_bytes(data + b"more")
    with pytest.raises(Refused, match=r"more\.ndjson\.zst: "):
        check(tmp_path / "more.ndjson.zst")


def test_a_manifest_that_was_changed_is_noticed_where_the_file_is_compressed(tmp_path: Path) -> None:
    """The checksum of the lines does not vouch for it; that of the frame does."""
    data = written(tmp_path / "a.ndjson.zst")
    assert zstandard.get_frame_parameters(data).has_checksum
    (tmp_path / "changed.ndjson.zst").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Refused, match="it was damaged"):
        check(tmp_path / "changed.ndjson.zst")


@pytest.mark.parametrize("changed", [{"partition": -1}, {"partition": 10_000}, {"queue": "_flows"}])
def test_a_manifest_names_a_log_that_may_be(changed: dict[str, Any]) -> None:
    fields = {"after": "0-0", "upto": "0-0", "events": 0, "sha256": Sum().sha256}
    assert read_manifest(write_manifest(manifest(**fields)), "a").partition == 0
    with pytest.raises(Refused):
        read_manifest(write_manifest(manifest(**{**fields, **changed})), "a")


def test_what_others_said_when_they_failed_is_redacted_with_messages() -> None:
    unmet = {
        "pay": "failed: ValueError: no card of ada@example.org",
        "ship": "skipped",
        "mail": "cancelled: x",
    }
    body = encode(Submitted("mail.send", msgspec.Raw(b"{}"), needs=Needs(unmet=unmet)))
    entry = b"1000-0", [b"event", b"submitted", b"job", b"", b"body", body]
    told = decode(read_entry(*Redaction(["message"]).of(entry)))
    assert isinstance(told, Submitted)
    assert told.needs == Needs(
        unmet={"pay": "failed: [redacted]", "ship": "skipped", "mail": "cancelled: [redacted]"}
    )
    assert Redaction(["payload.to"]).of(entry) == entry
