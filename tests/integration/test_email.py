"""Mails go to a real SMTP server: what arrives, what is retried and what fails for good."""

import asyncio
import email
import email.policy
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from certificates import make_certificate
from handling import Desk
from penstock.consumers.email import send
from penstock.consumers.remote import RemoteFailure
from penstock.core.errors import Permanent
from penstock.core.jobs.email import Attachment, EmailResult, SendEmail

JOB_ID = "email.0.1795477369681-0"


class Mailbox:
    """What an SMTP server of a test took, and what it was told to answer instead."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[Any] = []
        self.recipient_answers: dict[str, str] = {}
        self.data_answer = "250 taken"

    async def handle_RCPT(  # noqa: N802 (the names aiosmtpd calls)
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address in self.recipient_answers:
            return self.recipient_answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.data_answer.startswith("250"):
            mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
            self.envelopes.append(envelope)
        return self.data_answer


Serve = Callable[..., Awaitable[Mailbox]]


@pytest.fixture
async def serve(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """Start an SMTP server in the test's own loop and point the settings to it."""
    running: list[asyncio.Server] = []

    async def start(
        security: str = "none",
        *,
        user: str = "",
        password: str = "",
        ssl_context: ssl.SSLContext | None = None,
        **options: Any,
    ) -> Mailbox:
        mailbox = Mailbox()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: SMTP(mailbox, loop=loop, **options), "127.0.0.1", 0, ssl=ssl_context
        )
        running.append(server)
        port = server.sockets[0].getsockname()[1]
        settings = {"HOST": "127.0.0.1", "PORT": str(port), "SECURITY": security}
        for name, value in {**settings, "USER": user, "PASSWORD": password}.items():
            monkeypatch.setenv(f"PENSTOCK_SMTP_{name}", value)
        return mailbox

    yield start
    for server in running:
        server.close()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path))
    return Desk(tmp_path)


def mail_to(*addresses: str, **fields: Any) -> SendEmail:
    return msgspec.convert({"to": addresses, "subject": "Hello", "text": "How are you?", **fields}, SendEmail)


async def sent(job: SendEmail, desk: Desk) -> EmailResult:
    return await send(job, desk.context("email.send", JOB_ID))


async def test_a_mail_arrives_as_it_was_written(serve: Serve, desk: Desk) -> None:
    mailbox = await serve()
    job = mail_to(
        "Ada Łoś <ada@example.org>",
        cc=["bob@example.org"],
        bcc=["carol@example.org", "ada@example.org"],
        reply_to="Desk <desk@example.org>",
        sender="Penstock <jobs@example.org>",
        subject="Grüße, and a long subject that goes on " * 4,
        text="Schöne Grüße\n.\nfrom here",
        html="<p>Schöne Grüße</p>",
    )
    result = await sent(job, desk)
    (mail,), (envelope,) = mailbox.mails, mailbox.envelopes
    assert result.accepted == ("ada@example.org", "bob@example.org", "carol@example.org")
    assert result.refused == ()
    assert "taken" in result.response
    assert envelope.mail_from == "jobs@example.org"
    assert envelope.rcpt_tos == list(result.accepted)
    assert mail["To"] == "Ada Łoś <ada@example.org>"
    assert (mail["Cc"], mail["Bcc"]) == ("bob@example.org", None)
    assert mail["Reply-To"] == "Desk <desk@example.org>"
    assert mail["From"] == "Penstock <jobs@example.org>"
    assert mail["Subject"] == job.subject
    assert mail["Message-ID"] == result.message_id == f"<{JOB_ID}@penstock>"
    assert mail["Date"]
    assert mail["Auto-Submitted"] == "auto-generated"
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert text.get_content().replace("\r\n", "\n") == "Schöne Grüße\n.\nfrom here\n"
    assert html is not None
    assert html.get_content().strip() == "<p>Schöne Grüße</p>"
    assert desk.fractions() == [0.1, 0.5, 1]


async def test_html_alone_is_a_mail_too(serve: Serve, desk: Desk) -> None:
    mailbox = await serve()
    await sent(mail_to("ada@example.org", text="", html="<b>Hi</b>"), desk)
    assert mailbox.mails[0].get_content_type() == "text/html"
    assert mailbox.mails[0]["From"] == "penstock@localhost"


async def test_every_attempt_has_the_same_message_id(serve: Serve, desk: Desk) -> None:
    mailbox = await serve()
    for _ in range(2):
        await sent(mail_to("ada@example.org"), desk)
    assert len({mail["Message-ID"] for mail in mailbox.mails}) == 1


async def test_attachments_come_from_artifacts(serve: Serve, desk: Desk) -> None:
    mailbox = await serve()
    picture = desk.store.put(b"\x89PNG picture", content_type="image/png", filename="cat.png")
    letter = desk.store.put(b"a mail of old", content_type="message/rfc822")
    job = mail_to(
        "ada@example.org",
        attachments=[
            {"artifact": picture.id},
            {"artifact": picture.id, "filename": "Größe.png"},
            {"artifact": letter.id},
        ],
    )
    await sent(job, desk)
    files = list(mailbox.mails[0].iter_attachments())
    assert [file.get_filename() for file in files] == ["cat.png", "Größe.png", "attachment"]
    assert [file.get_content_type() for file in files] == ["image/png"] * 2 + ["application/octet-stream"]
    assert [file.get_payload(decode=True) for file in files] == [b"\x89PNG picture"] * 2 + [b"a mail of old"]


async def test_attachments_that_are_missing_or_too_large_fail_for_good(serve: Serve, desk: Desk) -> None:
    await serve()
    with pytest.raises(Permanent, match="no artifact"):
        await sent(mail_to("ada@example.org", attachments=[{"artifact": "sha256-" + "0" * 64}]), desk)
    large = desk.store.put(bytes(13 * 2**20)).id
    with pytest.raises(Permanent, match="bytes of attachments: the limit is"):
        await sent(mail_to("ada@example.org", attachments=[{"artifact": large}] * 2), desk)


def from_template(template: str, data: dict[str, Any], **fields: Any) -> SendEmail:
    return SendEmail(to=("ada@example.org",), template=template, data=data, **fields)


async def test_the_built_in_templates(serve: Serve, desk: Desk) -> None:
    mailbox = await serve()
    welcome = {"name": "Ada <Countess>", "product": "Penstock", "action_url": "https://example.org/?a=1&b=2"}
    await sent(from_template("welcome", welcome), desk)
    items = [{"name": "Tea", "amount": "3.00 €"}, {"name": "Cups", "quantity": 2, "amount": "9.00 €"}]
    receipt = {"name": "Ada", "number": "R-7", "items": items, "total": "12.00 €", "footer": "Example Ltd."}
    await sent(from_template("receipt", receipt), desk)
    first, second = mailbox.mails
    assert first["Subject"] == "Welcome to Penstock, Ada <Countess>"
    html, text = first.get_body(("html",)), first.get_body(("plain",))
    assert html is not None
    assert text is not None
    assert "Hello Ada &lt;Countess&gt;" in html.get_content()
    assert 'href="https://example.org/?a=1&amp;b=2"' in html.get_content()
    assert "Hello Ada <Countess>," in text.get_content()
    assert "Get started: https://example.org/?a=1&b=2" in text.get_content()
    assert second["Subject"] == "Your receipt R-7"
    text = second.get_body(("plain",))
    assert text is not None
    assert "1 x Tea: 3.00 €" in text.get_content()
    assert "2 x Cups: 9.00 €" in text.get_content()


async def test_own_templates_hide_built_in_ones_and_run_in_a_sandbox(
    serve: Serve, desk: Desk, tmp_path: Path
) -> None:
    mailbox = await serve()
    own = tmp_path / "templates"
    own.mkdir()
    (own / "welcome.subject").write_text("Hi {{ name }}\n")
    (own / "welcome.txt").write_text("Ours: {{ name }}")
    (own / "welcome.html").write_text("<p>{{ name }}</p>")
    (own / "blank.subject").write_text("{{ name }}")
    (own / "blank.txt").write_text("x")
    (own / "evil.subject").write_text("{{ ''.__class__.__mro__ }}")
    (own / "evil.txt").write_text("x")
    await sent(from_template("welcome", {"name": "A\r\nBcc: eve@example.org"}), desk)
    assert mailbox.mails[0]["Subject"] == "Hi A Bcc: eve@example.org"
    assert mailbox.mails[0]["Bcc"] is None
    await sent(from_template("welcome", {"name": "Ada"}, subject="Mine"), desk)
    assert mailbox.mails[1]["Subject"] == "Mine"
    with pytest.raises(Permanent, match="came out empty: give a subject"):
        await sent(from_template("blank", {"name": " "}), desk)
    with pytest.raises(Permanent, match="unsafe"):
        await sent(from_template("evil", {}), desk)


async def test_a_template_that_is_missing_or_lacks_a_value_fails_for_good(serve: Serve, desk: Desk) -> None:
    await serve()
    with pytest.raises(Permanent, match=r"no mail template 'nope'.*receipt, welcome"):
        await sent(from_template("nope", {}), desk)
    with pytest.raises(Permanent, match="'product' is undefined"):
        await sent(from_template("welcome", {"name": "Ada"}), desk)
    with pytest.raises(Permanent, match="receipt"):
        await sent(from_template("receipt", {"name": "A", "number": 1, "items": 7, "total": 1}), desk)


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        ("451 try again", RemoteFailure, "said 451 try again"),
        ("421 too busy", RemoteFailure, "421"),
        ("552 mailbox full", Permanent, "said 552 mailbox full"),
        ("550 spam", Permanent, "said 550 spam"),
    ],
)
async def test_the_servers_word_decides(
    serve: Serve, desk: Desk, answer: str, error: type[Exception], reason: str
) -> None:
    mailbox = await serve()
    mailbox.data_answer = answer
    with pytest.raises(error, match=reason):
        await sent(mail_to("ada@example.org"), desk)


async def test_some_recipients_refused_is_told_in_the_result(serve: Serve, desk: Desk) -> None:
    mailbox = await serve()
    mailbox.recipient_answers = {"bob@example.org": "550 unknown", "eve@example.org": "450 later"}
    result = await sent(mail_to("ada@example.org", "bob@example.org", "eve@example.org"), desk)
    assert result.accepted == ("ada@example.org",)
    assert [(one.address, one.code, one.message) for one in result.refused] == [
        ("bob@example.org", 550, "unknown"),
        ("eve@example.org", 450, "later"),
    ]
    assert len(mailbox.mails) == 1


async def test_all_recipients_refused_is_final_only_if_each_is(serve: Serve, desk: Desk) -> None:
    mailbox = await serve()
    mailbox.recipient_answers = {"ada@example.org": "550 unknown", "bob@example.org": "550 gone"}
    with pytest.raises(Permanent, match=r"ada@example\.org: 550 unknown; bob@example\.org: 550 gone"):
        await sent(mail_to("ada@example.org", "bob@example.org"), desk)
    mailbox.recipient_answers["bob@example.org"] = "450 later"
    with pytest.raises(RemoteFailure, match="450 later"):
        await sent(mail_to("ada@example.org", "bob@example.org"), desk)


async def test_no_server_there_is_retried(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("PENSTOCK_SMTP_PORT", "1")
    with pytest.raises(RemoteFailure, match=r"127\.0\.0\.1"):
        await sent(mail_to("ada@example.org"), desk)


async def test_without_a_host_the_local_catcher_gets_it(
    serve: Serve, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox = await serve()
    monkeypatch.setenv("PENSTOCK_MAIL_PORT", os.environ["PENSTOCK_SMTP_PORT"])
    monkeypatch.setenv("PENSTOCK_SMTP_HOST", "")
    await sent(mail_to("ada@example.org"), desk)
    assert len(mailbox.mails) == 1


def check_login(server: Any, session: Any, envelope: Any, mechanism: str, login: Any) -> AuthResult:
    assert isinstance(login, LoginPassword)
    return AuthResult(success=(login.login, login.password) == (b"ada", b"right"), handled=False)


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The server's side of TLS, with a certificate that this process trusts."""
    certificate, key = make_certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def test_starttls_and_login(serve: Serve, desk: Desk, tls: ssl.SSLContext) -> None:
    login = {"authenticator": check_login, "auth_required": True}
    mailbox = await serve(
        "starttls", user="ada", password="right", tls_context=tls, require_starttls=True, **login
    )
    await sent(mail_to("ada@example.org"), desk)
    assert len(mailbox.mails) == 1
    await serve("starttls", user="ada", password="wrong", tls_context=tls, require_starttls=True, **login)
    with pytest.raises(Permanent, match="535") as failure:
        await sent(mail_to("ada@example.org"), desk)
    assert "wrong" not in str(failure.value)


async def test_tls_from_the_first_byte(serve: Serve, desk: Desk, tls: ssl.SSLContext) -> None:
    mailbox = await serve("tls", ssl_context=tls)
    await sent(mail_to("ada@example.org"), desk)
    assert len(mailbox.mails) == 1


async def test_a_certificate_nobody_vouches_for_gets_no_mail(
    serve: Serve, desk: Desk, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    mailbox = await serve("starttls", tls_context=tls)
    with pytest.raises(RemoteFailure, match="certificate"):
        await sent(mail_to("ada@example.org"), desk)
    assert mailbox.mails == []


async def test_a_server_without_starttls_gets_no_mail_when_it_is_asked_for(serve: Serve, desk: Desk) -> None:
    mailbox = await serve("starttls")
    with pytest.raises(RemoteFailure, match="STARTTLS"):
        await sent(mail_to("ada@example.org"), desk)
    assert mailbox.mails == []


async def test_a_password_is_never_sent_in_the_clear(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SMTP_HOST", "mail.example.org")
    monkeypatch.setenv("PENSTOCK_SMTP_USER", "ada")
    monkeypatch.setenv("PENSTOCK_SMTP_SECURITY", "none")
    with pytest.raises(Permanent, match="PENSTOCK_SMTP_SECURITY"):
        await sent(mail_to("ada@example.org"), desk)


BASE: dict[str, Any] = {"to": ["ada@example.org"], "subject": "Hello", "text": "Hi"}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"to": []}, "$.to"),
        ({"to": ["ada@example.org", "nobody"]}, "$.to[1]"),
        ({"to": ["ada@example.org\nBcc: eve@example.org"]}, "$.to[0]"),
        ({"to": ["ada@example.org\n"]}, "$.to[0]"),
        ({"to": ["a@example.org, b@example.org"]}, "$.to[0]"),
        ({"cc": ["Eve\r\nBcc: x <eve@example.org>"]}, "$.cc[0]"),
        ({"bcc": ["a..b@example.org"]}, "$.bcc[0]"),
        ({"sender": "<ada@example.org>"}, "$.sender"),
        ({"reply_to": "ada@exa mple.org"}, "$.reply_to"),
        ({"subject": "Hello\r\nBcc: eve@example.org"}, "$.subject"),
        ({"subject": "Hello\n"}, "$.subject"),
        ({"subject": " "}, "give a subject"),
        ({"text": ""}, "text or html, or a template"),
        ({"template": "welcome"}, "text or html, or a template"),
        ({"text": "", "template": "../welcome"}, "$.template"),
        ({"attachments": [{"artifact": "/etc/passwd"}]}, "$.attachments[0].artifact"),
        (
            {"attachments": [{"artifact": "sha256-" + "0" * 64, "filename": "a\nb"}]},
            "$.attachments[0].filename",
        ),
        ({"to": ["ada@example.org"] * 60, "bcc": ["bob@example.org"] * 60}, "at most 100 recipients"),
        ({"priority": "high"}, "unknown field"),
    ],
)
def test_the_contract_refuses_what_could_not_be_sent(change: dict[str, Any], path: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refusal:
        msgspec.convert(BASE | change, SendEmail)
    assert path in str(refusal.value)


async def test_no_field_can_smuggle_a_header_past_the_contract(serve: Serve, desk: Desk) -> None:
    """A Struct built in Python is not validated: the handler itself must hold."""
    mailbox = await serve()
    evil = "x\r\nBcc: eve@example.org"
    for fields in ({"subject": evil}, {"sender": f"{evil} <a@b.org>"}, {"to": (f"{evil} <a@b.org>",)}):
        with pytest.raises(Permanent):
            await sent(SendEmail(**{"to": ("ada@example.org",), "subject": "s", "text": "t", **fields}), desk)  # type: ignore[arg-type]
    picture = desk.store.put(b"x").id
    job = mail_to("ada@example.org")
    named = msgspec.structs.replace(job, attachments=(Attachment(artifact=picture, filename=evil),))
    with pytest.raises(Permanent):
        await sent(named, desk)
    assert mailbox.mails == []
