"""Caught mails: each an .eml file in a folder, so that they outlive the process; the oldest go first.

An id is `<Unix ms>-<8 hex digits>`: it sorts by time and names the file. The envelope (who it was
really from and for, which a mail's own headers need not say) is kept in headers of ours on top.
"""

import re
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Final

import msgspec

from penstock.core.errors import NotFound

KEPT: Final = 500
KEPT_BYTES: Final = 256 * 1024 * 1024
MAIL_ID: Final = re.compile(r"\d{13,15}-[0-9a-f]{8}")
SENDER_HEADER: Final = "X-Envelope-From"
RECIPIENT_HEADER: Final = "X-Envelope-To"


class Attachment(msgspec.Struct, frozen=True):
    """A part of a mail that is a file; `index` is its place in the mail, `size` in bytes."""

    index: int
    filename: str
    content_type: str
    size: int


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """What a list shows of a mail. `at` is when it came, in ISO 8601; `size` in bytes."""

    id: str
    at: str
    sender: str
    recipients: tuple[str, ...]
    subject: str
    message_id: str
    size: int


class OpenMail(Mail, frozen=True, kw_only=True):
    """A mail with its contents; `text` and `html` are empty where it has none."""

    text: str
    html: str
    headers: tuple[tuple[str, str], ...]
    attachments: tuple[Attachment, ...]


class Mailbox:
    """The mails of one folder. One process writes it."""

    def __init__(self, folder: Path, *, kept: int = KEPT, kept_bytes: int = KEPT_BYTES) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder: Final = folder
        self._kept, self._kept_bytes = kept, kept_bytes
        self._mails: Final[dict[str, Mail]] = {}
        for path in sorted(folder.glob("*.eml")):
            if MAIL_ID.fullmatch(path.stem):
                self._mails[path.stem] = _mail(path.stem, path.read_bytes())

    def keep(self, sender: str, recipients: list[str], content: bytes) -> Mail:
        """Store a mail, and forget the oldest ones over the bounds."""
        mail_id = f"{time.time_ns() // 1_000_000}-{secrets.token_hex(4)}"
        envelope = [f"{SENDER_HEADER}: {sender}", *(f"{RECIPIENT_HEADER}: {name}" for name in recipients)]
        whole = "".join(f"{line}\r\n" for line in envelope).encode() + content
        draft = self._folder / f"{mail_id}.part"
        draft.write_bytes(whole)
        draft.rename(self._path(mail_id))
        mail = self._mails[mail_id] = _mail(mail_id, whole)
        self._forget_oldest()
        return mail

    def mails(self) -> list[Mail]:
        """All of them, the newest first."""
        return list(reversed(self._mails.values()))

    def raw(self, mail_id: str) -> bytes:
        """The mail as it came, under our envelope headers. Raises NotFound."""
        if mail_id not in self._mails:
            raise NotFound(f"no mail {mail_id!r} is kept here")
        return self._path(mail_id).read_bytes()

    def open(self, mail_id: str) -> OpenMail:
        """A mail with its contents. Raises NotFound."""
        content = self.raw(mail_id)
        message = _parse(content)
        return OpenMail(
            **msgspec.structs.asdict(self._mails[mail_id]),
            text=_body(message, "plain"),
            html=_body(message, "html"),
            headers=tuple((name, str(value)) for name, value in message.items()),
            attachments=tuple(found for found, _ in _attachments(message)),
        )

    def attachment(self, mail_id: str, index: int) -> tuple[Attachment, bytes]:
        """One attachment and its bytes. Raises NotFound."""
        for found, content in _attachments(_parse(self.raw(mail_id))):
            if found.index == index:
                return found, content
        raise NotFound(f"mail {mail_id} has no attachment {index}")

    def clear(self) -> int:
        """Forget all; answers how many there were."""
        count = len(self._mails)
        for mail_id in list(self._mails):
            self._forget(mail_id)
        return count

    def _forget_oldest(self) -> None:
        total = sum(mail.size for mail in self._mails.values())
        for mail_id, mail in list(self._mails.items())[:-1]:
            if len(self._mails) <= self._kept and total <= self._kept_bytes:
                return
            total -= mail.size
            self._forget(mail_id)

    def _forget(self, mail_id: str) -> None:
        del self._mails[mail_id]
        self._path(mail_id).unlink(missing_ok=True)

    def _path(self, mail_id: str) -> Path:
        return self._folder / f"{mail_id}.eml"


def _parse(content: bytes) -> EmailMessage:
    return BytesParser(policy=policy.default).parsebytes(content)


def _mail(mail_id: str, content: bytes) -> Mail:
    message = _parse(content)
    at = datetime.fromtimestamp(int(mail_id.split("-", maxsplit=1)[0]) / 1000, UTC)
    return Mail(
        id=mail_id,
        at=at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        sender=str(message[SENDER_HEADER] or ""),
        recipients=tuple(map(str, message.get_all(RECIPIENT_HEADER, []))),
        subject=str(message["Subject"] or ""),
        message_id=str(message["Message-ID"] or ""),
        size=len(content),
    )


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body(preferencelist=(kind,))
    if part is None:
        return ""
    try:
        return str(part.get_content())
    except (LookupError, ValueError):  # an unknown charset or a broken encoding
        payload = part.get_payload(decode=True)
        return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""


def _attachments(message: EmailMessage) -> Iterator[tuple[Attachment, bytes]]:
    for index, part in enumerate(message.iter_attachments()):
        payload = part.get_payload(decode=True)
        content = payload if isinstance(payload, bytes) else part.as_bytes()
        name = part.get_filename() or f"part-{index}"
        yield Attachment(index, name, part.get_content_type(), len(content)), content
