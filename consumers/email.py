"""The email worker's handler: compose a mail, hand it to the SMTP server, say what the server said.

The server is that of the settings, or the local mail catcher where none is set. The Message-ID comes
from the job's id, so it is the same in every attempt: when a connection breaks after the server took
the mail and before it said so, the second copy can be recognised by whoever keeps the mailbox.

    taken by one recipient or more      completed; those refused are named in the result
    4xx, a broken connection            tried again by the job's backoff
    5xx                                 failed for good, with the server's words
"""

import asyncio
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, localtime
from typing import Final

import aiosmtplib
import msgspec

from penstock.consumers.context import Context
from penstock.consumers.handlers import handler
from penstock.consumers.remote import RemoteFailure
from penstock.consumers.sources import store_of
from penstock.consumers.templates import Rendered, render
from penstock.core.artifacts import Artifact
from penstock.core.errors import NotFound, Permanent
from penstock.core.jobs.email import Attachment, EmailResult, RefusedRecipient, SendEmail
from penstock.core.settings import Settings, read_settings

MAX_ATTACHED_BYTES: Final = 25 * 1024 * 1024  # what most servers take
SMTP_TIMEOUT_S: Final = 20.0
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Attached(msgspec.Struct, frozen=True):
    """A file to attach, read from the store."""

    data: bytes
    content_type: str
    filename: str


class Letter(msgspec.Struct, frozen=True):
    """A mail that is ready to be handed over."""

    sender: str
    recipients: list[str]
    message_id: str
    mail: bytes


async def compose_only(job: SendEmail, context: Context) -> dict[str, int]:
    """The dry mode: everything but handing it over."""
    settings = read_settings()
    _server(settings)
    letter = await _letter(job, context, settings)
    return {"recipients": len(letter.recipients), "bytes": len(letter.mail)}


@handler(SendEmail, dry=compose_only)
async def send(job: SendEmail, context: Context) -> EmailResult:
    settings = read_settings()
    server = _server(settings)
    letter = await _letter(job, context, settings)
    context.progress(0.5, f"handing over to {server.hostname}")
    refused, response = await _deliver(server, letter.sender, letter.recipients, letter.mail)
    context.progress(1, "sent")
    return EmailResult(
        message_id=letter.message_id,
        accepted=tuple(one for one in letter.recipients if one not in refused),
        refused=tuple(RefusedRecipient(one, said.code, said.message) for one, said in refused.items()),
        response=response,
    )


async def _letter(job: SendEmail, context: Context, settings: Settings) -> Letter:
    context.progress(0.1, "composing")
    if job.template is not None:
        job = _fill(job, render(job.template, job.data, settings.data_dir.absolute() / "templates"))
    sender = _address(job.sender or settings.mail_from)
    message_id = f"<{context.job_id}@penstock>"
    files = await _read_attachments(job.attachments, context)
    # In a thread: encoding 25 MB of attachments would hold up every other job on this event loop.
    mail = await asyncio.to_thread(compose, job, sender, message_id, files)
    recipients = list(dict.fromkeys(_address(one).addr_spec for one in (*job.to, *job.cc, *job.bcc)))
    return Letter(sender.addr_spec, recipients, message_id, mail)


def compose(job: SendEmail, sender: Address, message_id: str, files: list[Attached]) -> bytes:
    """The mail as it goes over the wire. Bcc is no header: those addresses are told to the server only.

    Raises Permanent for a header that can't be written.
    """
    mail = EmailMessage(policy=SMTP_POLICY)
    try:
        mail["From"] = sender
        mail["To"] = [_address(one) for one in job.to]
        if job.cc:
            mail["Cc"] = [_address(one) for one in job.cc]
        if job.reply_to is not None:
            mail["Reply-To"] = _address(job.reply_to)
        mail["Subject"] = job.subject
        mail["Date"] = format_datetime(localtime())
        mail["Message-ID"] = message_id
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notes back, please
        if job.text or not job.html:
            mail.set_content(job.text)
            if job.html:
                mail.add_alternative(job.html, subtype="html")
        else:
            mail.set_content(job.html, subtype="html")
        for file in files:
            main, sub = _media_type(file.content_type)
            mail.add_attachment(file.data, maintype=main, subtype=sub, filename=file.filename)
        return mail.as_bytes()
    except (ValueError, MessageError) as error:
        raise Permanent(f"this can't be written as a mail: {error}") from error


def _fill(job: SendEmail, filled: Rendered) -> SendEmail:
    subject = job.subject or filled.subject
    try:
        return msgspec.structs.replace(
            job, template=None, subject=subject, text=filled.text, html=filled.html
        )
    except ValueError as error:
        raise Permanent(f"mail template {job.template!r} came out empty: {error}") from error


async def _read_attachments(attachments: tuple[Attachment, ...], context: Context) -> list[Attached]:
    if not attachments:
        return []
    store = store_of(context)
    try:
        known: list[Artifact] = [await store.adescribe(one.artifact) for one in attachments]
        if (total := sum(one.size for one in known)) > MAX_ATTACHED_BYTES:
            raise Permanent(f"{total} bytes of attachments: the limit is {MAX_ATTACHED_BYTES}")
        return [
            Attached(
                data=await store.aget(artifact.id),
                content_type=artifact.content_type,
                filename=given.filename or artifact.filename or "attachment",
            )
            for given, artifact in zip(attachments, known, strict=True)
        ]
    except NotFound as error:
        raise Permanent(str(error)) from error


def _server(settings: Settings) -> aiosmtplib.SMTP:
    """The SMTP client the settings ask for, not yet connected. Raises Permanent for an unsafe login."""
    if not settings.smtp_host:
        return aiosmtplib.SMTP(
            hostname="127.0.0.1", port=settings.mail_port, start_tls=False, timeout=SMTP_TIMEOUT_S
        )
    if settings.smtp_user and settings.smtp_security == "none" and settings.smtp_host not in LOOPBACK:
        raise Permanent(
            "PENSTOCK_SMTP_SECURITY=none would send the password readable for everyone on the way: "
            "set it to starttls or tls"
        )
    return aiosmtplib.SMTP(
        hostname=settings.smtp_host,
        port=settings.smtp_port,
        use_tls=settings.smtp_security == "tls",
        start_tls=settings.smtp_security == "starttls",
        username=settings.smtp_user or None,
        password=settings.smtp_password.reveal() or None,
        timeout=SMTP_TIMEOUT_S,
    )


async def _deliver(
    server: aiosmtplib.SMTP, sender: str, recipients: list[str], mail: bytes
) -> tuple[dict[str, aiosmtplib.SMTPResponse], str]:
    """Hand the mail over; answers who was refused, and the server's last words."""
    try:
        async with server:
            return await server.sendmail(sender, recipients, mail)
    except aiosmtplib.SMTPRecipientsRefused as error:
        said = "; ".join(f"{one.recipient}: {one.code} {one.message}" for one in error.recipients)
        if all(one.code >= 500 for one in error.recipients):
            raise Permanent(f"{server.hostname} refused every recipient: {said}") from error
        raise RemoteFailure(f"{server.hostname} refused every recipient for now: {said}") from error
    except aiosmtplib.SMTPResponseException as error:
        said = f"{server.hostname} said {error.code} {error.message}"
        raise (Permanent(said) if error.code >= 500 else RemoteFailure(said)) from error
    except aiosmtplib.SMTPNotSupported as error:
        raise Permanent(f"{server.hostname}: {error.message}") from error
    except (aiosmtplib.SMTPException, OSError) as error:
        raise RemoteFailure(f"{server.hostname}: {str(error) or type(error).__name__}") from error


def _media_type(content_type: str) -> tuple[str, str]:
    """Its two parts; what would make the attachment a part with parts of its own is bytes instead."""
    main, _, sub = content_type.partition(";")[0].strip().partition("/")
    return ("application", "octet-stream") if main in {"multipart", "message"} else (main, sub)


def _address(written: str) -> Address:
    """`ada@example.org` or `Ada <ada@example.org>`, as the contract has checked it."""
    name, bracket, spec = written.rpartition("<")
    try:
        return Address(display_name=name.strip(' "') if bracket else "", addr_spec=spec.rstrip(">"))
    except (ValueError, IndexError, MessageError) as error:
        raise Permanent(f"{written!r} is no address: {error}") from error
