"""What is looked for in a segment without taking it apart is what one finds who takes it apart."""

import io
from contextlib import ExitStack
from typing import Final

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import Refused
from penstock.core.keys import Keys
from penstock.core.log import Entry
from penstock.projections.replay.forms import entries, mentioning, sink
from penstock.projections.replay.wire import FORMAT, Manifest, Sum, write_line

KEYS: Final = Keys("p").partition("mail")
BODIES: Final = st.sampled_from(
    [b"{}", b'{"job":"mail.0.3-0"}', b'{"to":"\xc3\xa9"}', b'{"a":"' + b"x" * 900 + b'"}']
)
EVENTS: Final = st.lists(st.tuples(st.sampled_from([b"", b"3-0", b"4-0"]), BODIES), max_size=30)


def written(events: list[tuple[bytes, bytes]]) -> bytes:
    """An export of these, compressed."""
    file, total = io.BytesIO(), Sum()
    with ExitStack() as stack:
        lines = stack.enter_context(sink(".zst", file, KEYS))
        for number, (job, body) in enumerate(events):
            position = b"%d-0" % (number + 5)
            tag = b"completed" if job else b"trimmed"
            entry: Entry = (position, [b"event", tag, b"job", job, b"body", body])
            line = write_line(KEYS, entry)
            total.add(position, line)
            lines.write(entry, line)
        told = {"format": FORMAT, "queue": "mail", "epoch": "e", "after": "0-0", "upto": "99-0"}
        lines.finish(
            Manifest(**told, events=total.events, first=total.first, last=total.last, sha256=total.sha256)  # type: ignore[arg-type]
        )
    return file.getvalue()


@given(EVENTS)
def test_what_is_looked_for_is_found(events: list[tuple[bytes, bytes]]) -> None:
    data, texts = written(events), (b'"job":"mail.0.3-0"', b'"event":"trimmed"')
    *everything, manifest = entries("a", io.BytesIO(data))
    wanted = [
        entry
        for entry in everything
        if not isinstance(entry, Manifest) and any(text in write_line(KEYS, entry) for text in texts)
    ]
    assert mentioning("a", data, texts) == (wanted, manifest)
    assert mentioning("a", data, ()) == ([], manifest)


def test_what_was_cut_or_changed_is_refused() -> None:
    data = written([(b"3-0", b"{}"), (b"4-0", b"{}")])
    lines = zstandard.ZstdDecompressor().stream_reader(data).read()
    changed = zstandard.compress(lines.replace(b"4-0", b"3-0"))
    cut = zstandard.compress(lines[: lines.rindex(b'{"manifest"')])
    for wrong, words in ((changed, "checksum"), (cut, "manifest"), (data[:-9], "a: "), (b"", "manifest")):
        with pytest.raises(Refused, match=words):
            mentioning("a", wrong, (b"x",))
