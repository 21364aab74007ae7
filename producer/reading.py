"""From the bytes of a request to JobRequests, or to everything that is wrong with them.

A right job is decoded once. Only a wrong one is looked at field by field, options and payload together,
so that its sender learns all of it at once.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from penstock.core.contracts import declared
from penstock.core.errors import FieldProblem, InvalidJob, Refused, TooLarge, UnknownType
from penstock.core.validation import UNDECODABLE, every_problem
from penstock.producer.intake import JobRequest
from penstock.producer.refusals import Malformed

T = TypeVar("T")

_job: Final = msgspec.json.Decoder(JobRequest)
_jobs: Final = msgspec.json.Decoder(list[JobRequest])
_raw: Final = msgspec.json.Decoder(msgspec.Raw)
_rows: Final = msgspec.json.Decoder(list[msgspec.Raw])
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_job(body: bytes, queue: str) -> JobRequest:
    """One job. Raises Malformed, or InvalidJob with every wrong field of options and payload."""
    _check_text(body)
    try:
        return _job.decode(body)
    except UNDECODABLE:
        _check_json(body)
        raise InvalidJob(_every_problem(body, queue)) from None


def read_array(body: bytes, queue: str, limit: int) -> Sequence[JobRequest | Refused]:
    """A JSON array of jobs; a wrong one is answered by what is wrong with it.

    Raises Malformed, or TooLarge for more than `limit`.
    """
    _check_text(body)
    try:
        jobs: Sequence[JobRequest | Refused] = _jobs.decode(body)
    except UNDECODABLE:
        _check_json(body)
        jobs = [_read_or_refuse(row, queue) for row in _bounded(_split(body), limit)]
    return _bounded(jobs, limit)


def read_lines(body: bytes, queue: str, limit: int) -> Sequence[JobRequest | Refused]:
    """One job a line (NDJSON), empty lines left out. Raises TooLarge for more than `limit`."""
    lines = [line for line in body.split(b"\n", limit * 2 + 2) if line.strip()]
    _bounded(lines, limit)
    return [_read_or_refuse(line, queue) for line in lines]


def read_fields(body: bytes, shape: type[T]) -> T:
    """A JSON document as a `shape`. Raises Malformed, or InvalidJob with every wrong field."""
    _check_text(body)
    try:
        return msgspec.json.decode(body, type=shape)
    except UNDECODABLE:
        _check_json(body)
        raise InvalidJob(every_problem(shape, body, root="")) from None


def _read_or_refuse(row: bytes, queue: str) -> JobRequest | Refused:
    try:
        return read_job(row, queue)
    except Refused as refusal:
        return refusal


def _split(body: bytes) -> list[bytes]:
    try:
        return [bytes(row) for row in _rows.decode(body)]
    except msgspec.ValidationError as error:
        raise InvalidJob([FieldProblem("", f"{error}: give an array of jobs")]) from None


def _bounded(rows: Sequence[T], limit: int) -> Sequence[T]:
    if len(rows) > limit:
        raise TooLarge("jobs in a batch", len(rows), limit)
    return rows


def _check_json(body: bytes) -> None:
    try:
        _raw.decode(body)
    except UNDECODABLE as error:
        raise Malformed(f"the body is not JSON: {error}") from None


def _check_text(body: bytes) -> None:
    """What passes through undecoded would not be checked anywhere else."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"the body is not UTF-8: {error}") from None


def _every_problem(body: bytes, queue: str) -> list[FieldProblem]:
    """All that is wrong with a job whose options do not decode, its payload included."""
    problems = every_problem(JobRequest, body, root="")
    try:
        members = _members.decode(body)
        contract = declared(msgspec.json.decode(members["type"], type=str))
    except UnknownType as error:
        return [*problems, FieldProblem("type", str(error))]
    except (KeyError, msgspec.ValidationError):  # named already
        return problems
    if queue != contract.queue:
        words = f"{contract.type} belongs to queue {contract.queue!r}, not {queue!r}"
        problems.append(FieldProblem("type", words))
    if "payload" in members:
        problems += every_problem(contract.payload, bytes(members["payload"]))
    return problems
