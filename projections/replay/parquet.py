"""Exports as Parquet, for DuckDB, pandas and their like. The library is an extra: `penstock[parquet]`.

    position string · at timestamp (ms, UTC) · queue, event string · job string · data string (JSON)
    fields list<binary>: of an entry that has no `data`, what it is instead (wire.py)

The manifest stands in the file's metadata, under `penstock`; its SHA-256 is that of the same entries as
lines, so both forms of one stretch vouch for the same.
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO, Final

import msgspec

from penstock.core.errors import Misconfigured, Refused
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import Entry
from penstock.core.positions import milliseconds
from penstock.projections.replay.wire import (
    Manifest,
    Sum,
    read_line,
    read_manifest,
    write_line,
    write_manifest,
)

KEY: Final = b"penstock"
_ROWS: Final = 20_000  # of a group
_BYTES: Final = 32 * 1024 * 1024
_BATCH: Final = 1_000
_COLUMNS: Final = ["position", "event", "job", "data", "fields"]  # that an entry is made of


def library() -> Any:
    """pyarrow. Raises Misconfigured where it is not installed."""
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise Misconfigured("Parquet needs pyarrow: pip install 'penstock[parquet]'") from None
    return pyarrow


class Table:
    """Writes a table; a group of rows at a time is in memory."""

    def __init__(self, file: BinaryIO, keys: PartitionKeys) -> None:
        arrow = self._arrow = library()
        word = arrow.dictionary(arrow.int32(), arrow.string())
        self._schema: Final = arrow.schema(
            [
                ("position", arrow.string()),
                ("at", arrow.timestamp("ms", tz="UTC")),
                *(("queue", word), ("event", word)),
                *(("job", arrow.string()), ("data", arrow.string())),
                ("fields", arrow.list_(arrow.binary())),
            ]
        )
        self._writer: Final = arrow.parquet.ParquetWriter(
            file, self._schema, compression="zstd", write_page_checksum=True
        )
        self._queue: Final = keys.queue
        self._rows: list[dict[str, Any]] = []
        self._size = 0

    def __enter__(self) -> "Table":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, entry: Entry, line: bytes) -> None:
        """An entry, and its line."""
        told, fields = msgspec.json.decode(line, type=_Row), entry[1]
        row: dict[str, Any] = {
            "position": told.position,
            "at": milliseconds(told.position),
            "queue": self._queue,
        }
        if not bytes(told.data):
            row["fields"] = fields
        else:
            row |= {"event": told.event, "job": told.job, "data": fields[5].decode()}
        self._rows.append(row)
        self._size += len(line)
        if len(self._rows) >= _ROWS or self._size >= _BYTES:
            self._flush()

    def finish(self, manifest: Manifest) -> None:
        """All entries have come."""
        self._flush()
        self._writer.add_key_value_metadata({KEY: write_manifest(manifest)})

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._size = [], 0


class _Row(msgspec.Struct):
    position: str
    event: str = ""
    job: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")


def read_table(name: str, file: BinaryIO) -> Iterator[Entry | Manifest]:
    """As `forms.entries`."""
    arrow = library()
    try:
        table = arrow.parquet.ParquetFile(file, page_checksum_verification=True)
        text = (table.metadata.metadata or {}).get(KEY)
        if text is None:
            raise Refused(f"{name}: has no manifest, so it is no export")
        manifest = read_manifest(text, name)
        keys, total = Keys("").partition(manifest.queue, manifest.partition), Sum()
        for batch in table.iter_batches(batch_size=_BATCH, columns=_COLUMNS):
            for row in batch.to_pylist():
                entry = _entry(row)
                total.add(entry[0], write_line(keys, entry))
                yield entry
    except (arrow.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{name}: it was damaged: {str(error).partition(chr(10))[0]}") from None
    if not total.agrees(manifest):
        raise Refused(f"{name}: the checksum is wrong: rows were changed, or are missing")
    yield manifest


def _entry(row: dict[str, Any]) -> Entry:
    if row["data"] is None:
        return row["position"].encode(), list(row["fields"])
    head = msgspec.json.encode({name: row[name] for name in ("position", "event", "job")})
    return read_line(b'%b,"data":%b}' % (head[:-1], row["data"].encode()))
