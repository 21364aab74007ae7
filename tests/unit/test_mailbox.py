"""The mailbox keeps within its bounds, and reads whatever came."""

from pathlib import Path

import pytest

from penstock.core.errors import NotFound
from penstock.ui.mailbox import Mailbox

MAIL = b"Subject: one\r\n\r\nwords\r\n"


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path) -> None:
    box = Mailbox(tmp_path, kept=3)
    ids = [box.keep("a@x", ["b@x"], MAIL).id for _ in range(5)]
    assert [mail.id for mail in box.mails()] == ids[:1:-1]
    assert len(list(tmp_path.glob("*.eml"))) == 3


def test_the_oldest_go_when_they_take_too_much_room(tmp_path: Path) -> None:
    box = Mailbox(tmp_path, kept_bytes=2_000)
    for _ in range(4):
        box.keep("a@x", ["b@x"], MAIL + b"x" * 700)
    assert len(box.mails()) == 2
    last = box.keep("a@x", ["b@x"], MAIL + b"x" * 5_000)
    assert box.mails() == [last], "the newest stays, whatever its size"


def test_a_new_mailbox_finds_what_an_old_one_kept(tmp_path: Path) -> None:
    kept = Mailbox(tmp_path).keep("a@x", ["b@x", "c@x"], MAIL)
    (tmp_path / "notes.eml").write_bytes(b"not one of ours")
    (tmp_path / "1795477369681-00000000.part").write_bytes(b"half a mail")
    box = Mailbox(tmp_path)
    assert box.mails() == [kept]
    assert box.open(kept.id).recipients == ("b@x", "c@x")
    assert box.open(kept.id).text == "words\r\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no headers at all",
        b"\xff\xfe\x00binary",
        b"Content-Type: text/plain; charset=klingon\r\n\r\nnuqneH\r\n",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nunfinished",
        b"Subject: =?utf-8?b?broken?=\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!\r\n",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: message/rfc822\r\n"
        b"Content-Disposition: attachment\r\n\r\nSubject: inner\r\n\r\nwords\r\n--x--\r\n",
    ],
)
def test_any_mail_can_be_opened(tmp_path: Path, content: bytes) -> None:
    box = Mailbox(tmp_path)
    kept = box.keep("a@x", ["b@x"], content)
    assert box.open(kept.id).id == kept.id
    assert box.raw(kept.id).endswith(content)


def test_an_unknown_mail_is_not_found(tmp_path: Path) -> None:
    box = Mailbox(tmp_path / "box")
    (tmp_path / "secret.eml").write_bytes(b"elsewhere")
    for mail_id in ("../secret", "1795477369681-00000000", ""):
        with pytest.raises(NotFound):
            box.raw(mail_id)
