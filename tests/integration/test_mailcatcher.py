"""The mail catcher as a process: real SMTP in, page and JSON out, mails kept over SIGKILL."""

import signal
import smtplib
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from commands import Command
from servers import free_port

Start = Callable[..., Command]


class Catcher:
    """A running catcher and its two ports."""

    def __init__(self, start: Start, smtp: int, web: int) -> None:
        self.smtp, self.web = smtp, web
        self.command = start("mailcatcher", PENSTOCK_MAIL_PORT=smtp, PENSTOCK_MAIL_WEB_PORT=web)
        self.command.says("catching mail")
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{web}", trust_env=False, transport=httpx.HTTPTransport(retries=5)
        )

    def send(self, message: EmailMessage) -> None:
        with smtplib.SMTP("127.0.0.1", self.smtp, timeout=20) as smtp:
            smtp.send_message(message, from_addr="bounce@example.org", to_addrs=["ada@example.org"])


@pytest.fixture
def catcher(penstock: Start) -> Catcher:
    return Catcher(penstock, free_port(), free_port())


def message(subject: str = "Grüße") -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "me@example.org", "Ada <ada@example.org>", subject
    mail["Message-ID"] = "<email.0.1-0@penstock>"
    mail.set_content("plain words")
    mail.add_alternative("<script>alert(1)</script><b>rich words</b>", subtype="html")
    mail.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename='a"b\n.png'.replace("\n", ""))
    return mail


def test_a_mail_is_caught_with_all_it_has(catcher: Catcher) -> None:
    catcher.send(message())
    [listed] = catcher.http.get("/mails").json()["mails"]
    assert listed["subject"] == "Grüße"
    assert listed["sender"] == "bounce@example.org"
    assert listed["recipients"] == ["ada@example.org"]
    opened = catcher.http.get(f"/mails/{listed['id']}").json()
    assert opened["text"] == "plain words\r\n"
    assert "rich words" in opened["html"]
    assert opened["message_id"] == "<email.0.1-0@penstock>"
    [attachment] = opened["attachments"]
    assert (attachment["filename"], attachment["content_type"], attachment["size"]) == (
        'a"b.png',
        "image/png",
        4,
    )


def test_what_is_in_a_mail_can_do_nothing(catcher: Catcher) -> None:
    catcher.send(message("<script>alert(2)</script>"))
    mail_id = catcher.http.get("/mails").json()["mails"][0]["id"]
    page = catcher.http.get(f"/read/{mail_id}")
    assert "&lt;script&gt;alert(2)" in page.text
    assert "<script" not in page.text
    assert '<iframe sandbox src="' in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    html = catcher.http.get(f"/mails/{mail_id}/html")
    assert html.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    attachment = catcher.http.get(f"/mails/{mail_id}/attachments/0")
    assert attachment.content == b"\x89PNG"
    assert attachment.headers["Content-Type"] == "application/octet-stream"
    assert attachment.headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%22b.png"
    assert attachment.headers["X-Content-Type-Options"] == "nosniff"


def test_mails_outlive_sigkill(catcher: Catcher, penstock: Start) -> None:
    catcher.send(message("kept"))
    catcher.command.signal(signal.SIGKILL)
    catcher.command.wait()
    again = Catcher(penstock, free_port(), free_port())
    assert [mail["subject"] for mail in again.http.get("/mails").json()["mails"]] == ["kept"]
    assert "kept" in again.http.get("/").text


def test_mails_can_be_forgotten(catcher: Catcher, tmp_path: Path) -> None:
    catcher.send(message())
    catcher.send(message())
    assert catcher.http.delete("/mails").json() == {"cleared": 2}
    assert catcher.http.get("/mails").json() == {"mails": []}
    assert not list((tmp_path / "mail").glob("*.eml"))
    assert "None yet" in catcher.http.get("/").text


def test_what_is_not_there_is_said(catcher: Catcher) -> None:
    for path in ("/mails/1-0", "/read/..%2fx", "/mails/1795477369681-00000000/raw"):
        answer = catcher.http.get(path)
        assert answer.status_code == 404
    catcher.send(message())
    mail_id = catcher.http.get("/mails").json()["mails"][0]["id"]
    assert catcher.http.get(f"/mails/{mail_id}/attachments/7").status_code == 404


def test_other_host_names_are_refused(catcher: Catcher) -> None:
    assert catcher.http.get("/mails", headers={"Host": "evil.example"}).status_code == 400
    assert catcher.http.get("/mails", headers={"Host": f"localhost:{catcher.web}"}).status_code == 200


def test_a_mail_over_the_bound_is_refused(catcher: Catcher) -> None:
    big = message()
    big.add_attachment(bytes(30 * 1024 * 1024), maintype="application", subtype="zip", filename="big.zip")
    with pytest.raises(smtplib.SMTPSenderRefused) as refusal:
        catcher.send(big)
    assert refusal.value.smtp_code == 552
    assert catcher.http.get("/mails").json() == {"mails": []}


def test_it_ends_in_order(catcher: Catcher) -> None:
    catcher.command.signal(signal.SIGTERM)
    assert catcher.command.wait() == 0
