"""The contract of `email.send`. Addresses and headers are checked here, before a job is accepted."""

from typing import Annotated, Any, Final

import msgspec

from penstock.core.contracts import Backoff, contract

MAX_RECIPIENTS: Final = 100
MAX_ATTACHMENTS: Final = 20

# Dot-separated words @ dot-separated labels, alone or as `Name <address>`. ASCII only: a domain with
# other letters comes as punycode. What is left, like an overlong label, the mail server refuses.
_WORD: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_SPEC: Final = rf"{_WORD}(?:\.{_WORD})*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"
_END: Final = r"(?![\s\S])"  # the very end: `$` would let a line break pass
ADDRESS_PATTERN: Final = rf"^(?:{_SPEC}|[^\x00-\x1f\x7f-\x9f\u2028\u2029<>@]{{1,100}} <{_SPEC}>){_END}"
LINE_PATTERN: Final = rf"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*{_END}"

Address = Annotated[
    str,
    msgspec.Meta(
        pattern=ADDRESS_PATTERN, max_length=360, description="ada@example.org or Ada <ada@example.org>"
    ),
]
Addresses = Annotated[tuple[Address, ...], msgspec.Meta(max_length=MAX_RECIPIENTS)]


class Attachment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An artifact to attach; its own filename and content type count unless a filename is given."""

    artifact: Annotated[str, msgspec.Meta(pattern=rf"^sha256-[0-9a-f]{{64}}{_END}")]
    filename: Annotated[str, msgspec.Meta(pattern=LINE_PATTERN, max_length=150)] = ""


@contract("email.send", attempts=8, backoff=Backoff(base=5.0, cap=3600.0))
class SendEmail(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Send a mail, written out or from a template.

    `template` names one of the worker's (`welcome` and `receipt` are built in), filled with `data`;
    it brings subject, text and HTML, and a `subject` given here counts more.
    """

    to: Annotated[tuple[Address, ...], msgspec.Meta(min_length=1, max_length=MAX_RECIPIENTS)]
    cc: Addresses = ()
    bcc: Addresses = ()
    reply_to: Address | None = None
    sender: Address | None = None
    subject: Annotated[str, msgspec.Meta(pattern=LINE_PATTERN, max_length=500)] = ""
    text: str = ""
    html: str = ""
    attachments: Annotated[tuple[Attachment, ...], msgspec.Meta(max_length=MAX_ATTACHMENTS)] = ()
    template: Annotated[str, msgspec.Meta(pattern=rf"^[a-z0-9][a-z0-9_-]{{0,63}}{_END}")] | None = None
    data: dict[str, Any] = {}

    def __post_init__(self) -> None:
        written = bool(self.text or self.html)
        if written == (self.template is not None):
            raise ValueError("give either text or html, or a template")
        if written and not self.subject.strip():
            raise ValueError("give a subject")
        if len(self.to) + len(self.cc) + len(self.bcc) > MAX_RECIPIENTS:
            raise ValueError(f"at most {MAX_RECIPIENTS} recipients together")


class RefusedRecipient(msgspec.Struct, frozen=True):
    """An address the server would not take, with its words."""

    address: str
    code: int
    message: str


class EmailResult(msgspec.Struct, frozen=True):
    """What became of a mail that the server took for at least one recipient."""

    message_id: str
    accepted: tuple[str, ...]
    refused: tuple[RefusedRecipient, ...]
    response: str
