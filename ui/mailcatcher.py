"""The mail catcher: takes every mail over SMTP, delivers none, and shows them on a page and as JSON.

For development, on the loopback interface only: it asks nobody who they are. What is in a mail is
untrusted, so HTML is shown in a sandboxed frame under a policy that loads nothing from anywhere, and
attachments are only ever downloaded. Requests that name another host are refused (DNS rebinding).
"""

import asyncio
import logging
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import hypercorn.asyncio
import hypercorn.config
import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session
from jinja2 import Environment, FileSystemLoader
from litestar import Litestar, Request, Response, delete, get
from litestar.config.allowed_hosts import AllowedHostsConfig
from litestar.datastructures import State
from litestar.params import Parameter

from penstock.core.errors import NotFound
from penstock.core.settings import Settings
from penstock.ui.lifeline import StopSignals
from penstock.ui.mailbox import Mail, Mailbox, OpenMail

LOOPBACK: Final = "127.0.0.1"
MAX_MAIL_BYTES: Final = 32 * 1024 * 1024
TEMPLATES: Final = Path(__file__).parent / "static" / "mail"

PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; frame-ancestors 'none'"
MAIL_POLICY: Final = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
)
SAFE: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

logger = logging.getLogger(__name__)

MailId = Annotated[str, Parameter(description="A mail's id, as the list shows it.", max_length=40)]


class MailList(msgspec.Struct, frozen=True):
    """Caught mails, the newest first."""

    mails: list[Mail]


class Cleared(msgspec.Struct, frozen=True):
    """How many mails were forgotten."""

    cleared: int


async def serve_mailcatcher(settings: Settings) -> None:
    """Catch mails until SIGTERM or SIGINT."""
    stop = StopSignals()
    mailbox = Mailbox(settings.data_dir / "mail")
    loop = asyncio.get_running_loop()
    smtp = await loop.create_server(lambda: _smtp(mailbox), LOOPBACK, settings.mail_port)
    config = hypercorn.config.Config()
    config.bind = [f"{LOOPBACK}:{settings.mail_web_port}"]
    config.graceful_timeout = 2.0
    config.errorlog = None
    logger.info("catching mail on port %d, shown on port %d", settings.mail_port, settings.mail_web_port)
    async with smtp:
        app: Any = create_mail_app(mailbox, settings.mail_web_port)
        await hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.first.wait)


class Catcher:
    """What aiosmtpd calls for a session: keep every mail, refuse none."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox: Final = mailbox

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep the mail; answers the SMTP reply."""
        content = envelope.original_content or b""
        mail = self._mailbox.keep(envelope.mail_from or "", envelope.rcpt_tos, content)
        logger.info("caught %s for %s: %s", mail.id, ", ".join(mail.recipients), mail.subject)
        return f"250 OK kept as {mail.id}"


def _smtp(mailbox: Mailbox) -> SMTP:
    return SMTP(Catcher(mailbox), data_size_limit=MAX_MAIL_BYTES, enable_SMTPUTF8=True, hostname="localhost")


@get("/", sync_to_thread=False, include_in_schema=False)
def page_of_all(state: State) -> Response[str]:
    """The list as a page."""
    return _page("list.html", mails=state.mailbox.mails())


@get("/read/{mail_id:str}", sync_to_thread=False, include_in_schema=False)
def page_of_one(state: State, mail_id: MailId) -> Response[str]:
    """One mail as a page."""
    return _page("mail.html", mail=state.mailbox.open(mail_id))


@get("/mails", sync_to_thread=False)
def list_mails(state: State) -> MailList:
    """All mails, the newest first."""
    return MailList(state.mailbox.mails())


@get("/mails/{mail_id:str}", sync_to_thread=False)
def one_mail(state: State, mail_id: MailId) -> OpenMail:
    """One mail with its contents."""
    opened: OpenMail = state.mailbox.open(mail_id)
    return opened


@get("/mails/{mail_id:str}/html", sync_to_thread=False)
def html_of_mail(state: State, mail_id: MailId) -> Response[str]:
    """The HTML body as a document that can load and run nothing."""
    headers = {"Content-Security-Policy": MAIL_POLICY}
    return Response(state.mailbox.open(mail_id).html, media_type="text/html", headers=headers)


@get("/mails/{mail_id:str}/raw", sync_to_thread=False)
def raw_mail(state: State, mail_id: MailId) -> Response[bytes]:
    """The mail as it came, to download."""
    return _download(state.mailbox.raw(mail_id), f"{mail_id}.eml")


@get("/mails/{mail_id:str}/attachments/{index:int}", sync_to_thread=False)
def attachment_of_mail(state: State, mail_id: MailId, index: int) -> Response[bytes]:
    """An attachment, to download."""
    found, content = state.mailbox.attachment(mail_id, index)
    return _download(content, found.filename)


@delete("/mails", status_code=200, sync_to_thread=False)
def clear_mails(state: State) -> Cleared:
    """Forget all mails."""
    return Cleared(state.mailbox.clear())


def create_mail_app(mailbox: Mailbox, port: int) -> Litestar:
    """The page and the JSON of a mailbox, for browsers on this machine that ask for `port`."""
    return Litestar(
        [
            *(page_of_all, page_of_one, list_mails, one_mail, html_of_mail, raw_mail),
            *(attachment_of_mail, clear_mails),
        ],
        state=State({"mailbox": mailbox}),
        allowed_hosts=AllowedHostsConfig([f"{host}:{port}" for host in ("localhost", LOOPBACK)]),
        exception_handlers={NotFound: _not_found},
        response_headers=SAFE,
        openapi_config=None,
        logging_config=None,  # ours is set up by the process
    )


@cache
def _templates() -> Environment:
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)


def _page(template: str, **values: Any) -> Response[str]:
    text = _templates().get_template(template).render(**values)
    return Response(text, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})


def _download(content: bytes, filename: str) -> Response[bytes]:
    disposition = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
    return Response(
        content, media_type="application/octet-stream", headers={"Content-Disposition": disposition}
    )


def _not_found(_: Request[Any, Any, Any], error: NotFound) -> Response[dict[str, Any]]:
    problem = {"title": "Not Found", "status": 404, "detail": str(error)}
    return Response(problem, status_code=404, media_type="application/problem+json")
