"""The log outside of Redis: every entry comes back byte by byte, and nothing that was changed is believed."""

import base64
import io
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import Refused
from penstock.core.events import Needs, Submitted, decode, encode, read_entry
from penstock.core.keys import Keys
from penstock.core.log import Entry
from penstock.core.sealing import Seals
from penstock.projections.replay import forms
from penstock.projections.replay.files import reading, writing
from penstock.projections.replay.forms import check_form, entries, sink, verified
from penstock.projections.replay.redaction import Redaction
from penstock.projections.replay.wire import (
    FORMAT,
    Manifest,
    Sum,
    read_line,
    write_line,
    write_manifest,
)

KEYS = Keys("penstock").partition("mail")
PLACES = st.builds(lambda ms, seq: f"{ms}-{seq}".encode(), st.integers(1, 2**45), st.integers(0, 2**64 - 1))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
BODIES = st.one_of(JSON.map(msgspec.json.encode), st.binary(), st.just(b'{"a": 1,\n"b": 2}'), st.just(b" 1"))
TAGS = st.sampled_from([b"submitted", b"completed", b"trimmed", b"completed/2", b"Not One", b"", b"\xff"])


def entry_of(position: bytes, tag: bytes, job: bytes, body: bytes) -> Entry:
    return position, [b"event", tag, b"job", job, b"body", body]


@given(PLACES, TAGS, st.one_of(st.just(b""), PLACES, st.binary()), BODIES)
def test_any_entry_comes_back_as_it_was(position: bytes, tag: bytes, job: bytes, body: bytes) -> None:
    entry = entry_of(position, tag, job, body)
    line = write_line(KEYS, entry)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line)["queue"] == "mail"
    assert read_line(line) == entry


@given(PLACES, st.lists(st.binary(), min_size=1, max_size=8))
def test_entries_of_a_foreign_hand_come_back_too(position: bytes, fields: list[bytes]) -> None:
    assert read_line(write_line(KEYS, (position, fields))) == (position, fields)


def test_a_line_is_made_for_people_and_tools() -> None:
    line = write_line(KEYS, entry_of(b"1795000000000-3", b"completed", b"1795000000000-0", b'{"ms":1}'))
    assert msgspec.json.decode(line) == {
        "position": "1795000000000-3",
        "at": "2026-11-18T11:06:40.000Z",
        "queue": "mail",
        "event": "completed",
        "job": "mail.0.1795000000000-0",
        "data": {"ms": 1},
    }


ENTRIES = [
    entry_of(b"1000-0", b"submitted", b"", encode(Submitted("mail.send", msgspec.Raw(b'{"to":"\xc3\xbc"}')))),
    entry_of(b"1000-1", b"started", b"1000-0", b'{"attempt":1,"worker":"w"}'),
    (b"1000-2", [b"foreign", b"\x00\xff"]),
    entry_of(b"1001-0", b"completed", b"1000-0", b'{"ms":3.5,"result":[1,2]}'),
    entry_of(b"1001-1", b"queue_paused", b"", b"{}"),
    entry_of(b"1001-2", b"completed", b"1000-0", b"no json"),
]
NAMES = ["log.ndjson", "log.ndjson.zst", "log.parquet"]


def written(path: Path, some: list[Entry] = ENTRIES, **fields: Any) -> Manifest:
    total = Sum()
    with writing(str(path)) as file, sink(path.name, file, KEYS) as out:
        for entry in some:
            line = write_line(KEYS, entry)
            total.add(entry[0], line)
            out.write(entry, line)
        known = {"format": FORMAT, "queue": "mail", "epoch": "e", "after": "0-0", "upto": total.last}
        said = {"events": total.events, "first": total.first, "last": total.last, "sha256": total.sha256}
        manifest = Manifest(**{**known, **said, **fields})
        out.finish(manifest)
    return manifest


@pytest.mark.parametrize("name", NAMES)
def test_a_file_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    manifest = written(tmp_path / name)
    with reading(str(tmp_path / name)) as file:
        *found, last = entries(name, file)
        assert found == ENTRIES
        assert last == manifest
        assert verified(name, file) == manifest
    assert manifest.sha256 == written(tmp_path / ("other-" + NAMES[0])).sha256


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_stretch_is_a_file_too(name: str, tmp_path: Path) -> None:
    manifest = written(tmp_path / name, [], after="5-0", upto="5-0")
    with reading(str(tmp_path / name)) as file:
        assert verified(name, file) == manifest


def test_many_rows_are_many_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.projections.replay import parquet

    monkeypatch.setattr(parquet, "_ROWS", 7)
    some = [entry_of(b"%d-0" % n, b"logged", b"1-1", b'{"line":"%d"}' % n) for n in range(1, 40)]
    written(tmp_path / "log.parquet", some)
    with reading(str(tmp_path / "log.parquet")) as file:
        assert list(entries("log.parquet", file))[:-1] == some


@pytest.mark.parametrize("name", NAMES)
def test_no_change_and_no_cut_is_believed(name: str, tmp_path: Path) -> None:
    written(tmp_path / name)
    whole, chance = (tmp_path / name).read_bytes(), random.Random(1)

    def check(data: bytes) -> None:
        found: list[Entry | Manifest] = [*ENTRIES]
        with suppress(Refused):
            # What of a compressed or columnar file says nothing about its content may change.
            found = list(entries(name, io.BytesIO(data)))[:-1]
        assert found == ENTRIES

    for _ in range(200):
        check(whole[: chance.randrange(len(whole))])
        changed = bytearray(whole)
        changed[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        check(bytes(changed))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[:-1], "the end is missing: it was cut after 6 events"),
        (lambda lines: [], "the end is missing"),
        (lambda lines: lines[1:], "the checksum is wrong: 6 events with SHA-256"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "line 2 is no event of a log: 1000-0 comes after"),
        (lambda lines: [*lines, lines[0]], "there is more after the manifest, in line 8"),
        (lambda lines: [b"hello\n", *lines], "line 1 is no event of a log"),
        (lambda lines: [*lines[:-1], b'{"manifest":{"queue":"mail"}}\n'], "its manifest cannot be read"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b'"mail"', b'"../x"')], "'../x' is no queue's name"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b'"format":1', b'"format":2')], "is of format 2"),
    ],
)
def test_what_is_wrong_is_said(
    change: Callable[[list[bytes]], list[bytes]], says: str, tmp_path: Path
) -> None:
    written(tmp_path / "log.ndjson")
    lines = (tmp_path / "log.ndjson").read_bytes().splitlines(keepends=True)
    with pytest.raises(Refused, match=r"^x\.ndjson: ") as refused:
        list(entries("x.ndjson", io.BytesIO(b"".join(change(lines)))))
    assert says in str(refused.value)


def test_a_line_without_end_is_not_read_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "MAX_LINE", 1_000_000)
    bomb = zstandard.compress(b"x" * 50_000_000)
    assert len(bomb) < 10_000
    with pytest.raises(Refused, match="a line has more than 1,000,000 bytes"):
        list(entries("bomb", io.BytesIO(bomb)))


def test_nobody_sees_half_a_file_and_none_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    with suppress(RuntimeError), writing(str(path)) as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    written(path)
    before = path.read_bytes()
    with pytest.raises(Refused, match="is there already"), writing(str(path)):
        pass
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(Refused, match="there is no such file"), reading(str(tmp_path / "nosuch")):
        pass
    with pytest.raises(Refused, match="the name says the form"):
        check_form("log.csv")
    with pytest.raises(Refused, match="'ftp' is none of file, s3"), reading("ftp://host/folder/log"):
        pass


def body(entry: Entry) -> Any:
    return msgspec.json.decode(entry[1][5])


def submitted(payload: bytes, **fields: Any) -> Entry:
    told = Submitted("mail.send", msgspec.Raw(payload), **fields)
    return entry_of(b"1000-0", b"submitted", b"", encode(told))


def test_redaction_takes_out_what_is_named_and_nothing_else() -> None:
    redaction = Redaction(["payload.to", "payload.items.price", "result.secret", "message", "payload.to"])
    assert redaction.paths == ("payload.to", "payload.items.price", "result.secret", "message")
    entry = submitted(b'{"to":{"a":1},"items":[{"price":1.10,"n":[1]},{"n":2},3],"price":1e3}', tags=("x",))
    told = decode(read_entry(*redaction.of(entry)))
    assert isinstance(told, Submitted)
    assert told.tags == ("x",)
    kept = b'{"to":"[redacted]","items":[{"price":"[redacted]","n":[1]},{"n":2},3],"price":1e3}'
    assert bytes(told.payload) == kept
    untouched = entry_of(b"1000-1", b"started", b"1000-0", b'{"attempt": 1, "worker":"w"}')
    assert redaction.of(untouched) is untouched
    failed = entry_of(b"1000-2", b"failed", b"1000-0", b'{"reason":"r","error":"E","message":"to ada"}')
    assert body(redaction.of(failed)) == {"reason": "r", "error": "E", "message": "[redacted]"}


def test_redaction_reaches_results_that_were_handed_on() -> None:
    needs = Needs(results={"one": msgspec.Raw(b'{"secret":1,"n":2}')}, types={"one": "a.b"})
    entry = submitted(b"{}", needs=needs)
    assert body(Redaction(["result.secret"]).of(entry))["needs"]["results"]["one"]["secret"] == "[redacted]"
    assert body(Redaction(["result.secret"]).of(submitted(b"{}", needs=Needs())))["needs"] == {"results": {}}


def test_of_what_cannot_be_read_nothing_is_left() -> None:
    redaction = Redaction(["payload.to"])
    assert redaction.of(entry_of(b"1-0", b"submitted", b"", b'{"payload":{"to":'))[1][5] == b'"[redacted]"'
    deep = b'{"payload":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    assert redaction.of(entry_of(b"1-0", b"submitted", b"", deep))[1][5] == b'"[redacted]"'
    foreign = (b"1-0", [b"event", b"x", b"note", b"ada@example.org"])
    assert redaction.of(foreign)[1] == [b"event", b"x", b"note", b'"[redacted]"']


def test_what_is_sealed_stays_sealed() -> None:
    seals = Seals(base64.b64encode(b"k" * 32).decode())
    sealed = seals.seal_json(b'{"to":"ada"}', "mail.send", "payload")
    entry = submitted(bytes(sealed))
    assert body(Redaction(["payload.to", "payload"]).of(entry))["payload"] == msgspec.json.decode(sealed)


@pytest.mark.parametrize("path", ["type", "tags", "attempt", "", "payload..to", "message.x", "needs.results"])
def test_what_the_queue_needs_is_not_redacted(path: str) -> None:
    with pytest.raises(Refused, match="cannot be redacted"):
        Redaction([path])


def test_the_sum_tells_an_order_from_another() -> None:
    total = Sum()
    total.add(b"10-0", b"x")
    with pytest.raises(ValueError, match="9-1 comes after 10-0"):
        total.add(b"9-1", b"x")
    manifest = Manifest(
        format=1,
        queue="mail",
        epoch="e",
        after="0-0",
        upto="10-0",
        events=1,
        first="10-0",
        last="10-0",
        sha256=total.sha256,
    )
    assert total.agrees(manifest)
    assert write_manifest(manifest).startswith(b'{"manifest":{"format":1,')
