"""The ai worker: a real local model, and a chat with a real server that speaks the streaming protocol."""

import io
import itertools
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image, ImageDraw, ImageFont

from handling import Desk
from penstock.consumers import ai, chat
from penstock.consumers.remote import RemoteFailure
from penstock.core.errors import Permanent, RetryLater
from penstock.core.jobs.ai import Chat, ChatResult, DetectLanguage, Message, ReadText, Usage
from webserver import Route, reply, serving, stream

OCR_INSTALLED = find_spec("rapidocr") is not None and find_spec("onnxruntime") is not None
WORDS = ["Water ", "flows ", "down", "hill", "."]
USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}

asked: list[dict[str, Any]] = []


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Die Katze sitzt auf dem warmen Dach und schaut den Vögeln zu.", "de"),
        ("The cat sits on the warm roof and watches the birds.", "en"),
        ("Le chat est assis sur le toit chaud et regarde les oiseaux.", "fr"),
        ("El gato está sentado en el tejado caliente y mira los pájaros.", "es"),
        ("Il gatto è seduto sul tetto caldo e guarda gli uccelli.", "it"),
        ("O gato está sentado no telhado quente e observa os pássaros.", "pt"),
        ("De kat zit op het warme dak en kijkt naar de vogels.", "nl"),
        ("Kot siedzi na ciepłym dachu i patrzy na ptaki.", "pl"),
    ],
)
def test_a_language_is_told_with_confidences(desk: Desk, text: str, expected: str) -> None:
    result = ai.language(DetectLanguage(text), desk.context())
    assert result.language == expected
    assert len(result.confidences) == 8
    assert result.confidences[0].language == expected
    values = [one.confidence for one in result.confidences]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("text", ["12345 !!", "Привет, мир", "   "])
def test_a_text_without_words_it_knows_has_no_language(desk: Desk, text: str) -> None:
    assert ai.language(DetectLanguage(text), desk.context()).language is None


def picture_of(text: str) -> bytes:
    picture = Image.new("RGB", (700, 160), "white")
    ImageDraw.Draw(picture).text((20, 50), text, "black", ImageFont.load_default(44))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.mark.skipif(OCR_INSTALLED, reason="the extra is installed")
def test_ocr_without_its_extra_says_what_to_install(desk: Desk) -> None:
    with pytest.raises(Permanent, match=r"pip install 'penstock\[ocr\]'"):
        ai.ocr(ReadText("sha256-" + "0" * 64), desk.context())


@pytest.mark.skipif(not OCR_INSTALLED, reason="the extra is not installed")
def test_ocr_reads_the_text_in_a_picture(desk: Desk) -> None:
    source = desk.store.put(picture_of("Penstock 2026")).id
    result = ai.ocr(ReadText(source), desk.context())
    assert result.text == "Penstock 2026"
    (line,) = result.lines
    assert line.confidence > 0.8
    left, top, right, bottom = line.box
    assert 0 <= left < right <= 700
    assert 30 <= top < bottom <= 130
    empty = io.BytesIO()
    Image.new("RGBA", (60, 60)).save(empty, "PNG")
    assert ai.ocr(ReadText(desk.store.put(empty.getvalue()).id), desk.context()).lines == ()


def event(content: dict[str, Any] | str) -> bytes:
    body = content.encode() if isinstance(content, str) else msgspec.json.encode(content)
    return b"data: " + body + b"\n\n"


def token(text: str) -> bytes:
    return event({"id": "x", "model": "tiny-1b-q4", "choices": [{"index": 0, "delta": {"content": text}}]})


def finish(reason: str = "stop") -> bytes:
    return event({"model": "tiny-1b-q4", "choices": [{"delta": {}, "finish_reason": reason}]})


def answering(*chunks: bytes, pause: float = 0) -> Route:
    def route(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        asked.append(msgspec.json.decode(body) | {"authorization": request.headers.get("authorization")})

        def paced() -> Iterator[bytes]:
            for chunk in chunks:
                time.sleep(pause)
                yield chunk

        stream(request, paced(), "text/event-stream")

    return route


def refusing(status: int, body: bytes = b"", **headers: str) -> Route:
    return lambda request: reply(request, status, body, **headers)


WHOLE = (*map(token, WORDS), finish(), event({"choices": [], "usage": USAGE}), event("[DONE]"))
SPLIT = b": keep-alive\r\n\r\n" + b"".join(WHOLE).replace(b"\n", b"\r\n")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`endpoint(route)` serves the chat by that route and points the settings to it."""
    with serving(routes := {}) as base:

        def point_to(route: Route) -> None:
            asked.clear()
            routes["/v1/chat/completions"] = route
            monkeypatch.setenv("PENSTOCK_AI_BASE_URL", f"{base}/v1/")
            monkeypatch.setenv("PENSTOCK_AI_API_KEY", "sk-secret")
            monkeypatch.setenv("PENSTOCK_AI_MODEL", "tiny")

        yield point_to


async def answer(job: Chat, desk: Desk) -> ChatResult:
    return await ai.chat(job, desk.context("ai.chat"))


async def test_a_chat_is_answered_and_its_words_arrive_as_progress(endpoint: Any, desk: Desk) -> None:
    endpoint(answering(*WHOLE, pause=0.08))
    result = await answer(Chat(prompt="Why?", system="Be brief.", max_tokens=10, temperature=0.3), desk)
    assert result == ChatResult("Water flows downhill.", "tiny-1b-q4", "stop", Usage(9, 5, 14))
    assert asked == [
        {
            "model": "tiny",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
            "max_tokens": 10,
            "temperature": 0.3,
            "stream": True,
            "stream_options": {"include_usage": True},
            "authorization": "Bearer sk-secret",
        }
    ]
    texts = [data["text"] for data in desk.progress_data()]
    assert texts[0] == "Water "
    assert texts[-1] == "Water flows downhill."
    assert 2 <= len(texts) <= len(WORDS)
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert desk.fractions()[0] == 0.1
    assert desk.fractions()[-1] == 1


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_events_may_be_cut_anywhere(endpoint: Any, desk: Desk, size: int) -> None:
    endpoint(answering(*(SPLIT[at : at + size] for at in range(0, len(SPLIT), size))))
    result = await answer(Chat(messages=(Message("user", "Why?"),), model="other"), desk)
    assert result.text == "Water flows downhill."
    assert asked[0]["model"] == "other"
    assert asked[0]["messages"] == [{"role": "user", "content": "Why?"}]
    assert "temperature" not in asked[0]


async def test_many_tokens_make_few_and_small_reports(endpoint: Any, desk: Desk) -> None:
    endpoint(answering(*[token("word ")] * 3000, finish("length"), event("[DONE]")))
    result = await answer(Chat(prompt="Go on"), desk)
    assert result.text == "word " * 3000
    assert result.finish_reason == "length"
    assert result.usage is None
    assert len(desk.reports) < 60
    assert max(len(data["text"]) for data in desk.progress_data()) == ai.PROGRESS_TAIL_CHARS
    assert desk.progress_data()[-1]["chars"] == 15_000


async def test_an_answer_without_end_is_cut(endpoint: Any, desk: Desk) -> None:
    endpoint(answering(*[token("x" * 1000)] * 200))
    result = await answer(Chat(prompt="Go on"), desk)
    assert result.finish_reason == "length"
    assert len(result.text) == chat.MAX_ANSWER_CHARS


@pytest.mark.parametrize(
    ("route", "error", "reason"),
    [
        (
            refusing(400, b'{"error": {"message": "no such parameter"}}'),
            Permanent,
            "400 .*: no such parameter",
        ),
        (refusing(401, b'{"error": "bad key"}'), Permanent, "401 .*: bad key"),
        (refusing(404, b"model 'tiny' not found"), Permanent, "404 .*: model 'tiny' not found"),
        (refusing(429), RemoteFailure, "429"),
        (refusing(500, b"<html>" + b"x" * 10**6), RemoteFailure, "500 .*: <html>"),
        (refusing(503), RemoteFailure, "503"),
        (answering(token("Water ")), RemoteFailure, "broke off after 1 tokens"),
        (answering(), RemoteFailure, "broke off after 0 tokens"),
        (
            answering(token("a"), event({"error": {"message": "out of memory"}})),
            RemoteFailure,
            "out of memory",
        ),
        (answering(event("{nonsense")), RemoteFailure, "no chat event"),
        (answering(*[b"data: " + b"x" * 50_000] * 20), RemoteFailure, "an event of more than"),
    ],
)
async def test_what_goes_wrong_is_retried_or_final(
    endpoint: Any, desk: Desk, route: Route, error: type[Exception], reason: str
) -> None:
    endpoint(route)
    with pytest.raises(error, match=reason) as failure:
        await answer(Chat(prompt="Why?"), desk)
    assert len(str(failure.value)) < 600
    assert "sk-secret" not in str(failure.value)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_endpoint_says_when_to_come_back(endpoint: Any, desk: Desk, status: int) -> None:
    endpoint(refusing(status, retry_after="11"))
    with pytest.raises(RetryLater) as later:
        await answer(Chat(prompt="Why?"), desk)
    assert later.value.after == 11


async def test_an_endpoint_that_is_down_or_silent_is_retried(
    endpoint: Any, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint(answering(token("a"), finish(), pause=1))
    monkeypatch.setattr(chat, "SILENCE_S", 0.1)
    with pytest.raises(RemoteFailure, match="ReadTimeout"):
        await answer(Chat(prompt="Why?"), desk)
    monkeypatch.setenv("PENSTOCK_AI_BASE_URL", "http://127.0.0.1:1/v1")
    with pytest.raises(RemoteFailure, match=r"127\.0\.0\.1:1"):
        await answer(Chat(prompt="Why?"), desk)


async def test_without_an_endpoint_or_a_model_the_variable_is_named(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENSTOCK_AI_BASE_URL", raising=False)
    monkeypatch.delenv("PENSTOCK_AI_MODEL", raising=False)
    with pytest.raises(Permanent, match="PENSTOCK_AI_BASE_URL"):
        await answer(Chat(prompt="Why?"), desk)
    monkeypatch.setenv("PENSTOCK_AI_BASE_URL", "http://127.0.0.1:1/v1")
    with pytest.raises(Permanent, match="PENSTOCK_AI_MODEL"):
        await answer(Chat(prompt="Why?"), desk)


@pytest.mark.parametrize(
    ("contract", "payload", "path"),
    [
        (DetectLanguage, {"text": ""}, "$.text"),
        (DetectLanguage, {"text": "x" * 100_001}, "$.text"),
        (ReadText, {"source": "/etc/passwd"}, "$.source"),
        (Chat, {}, "either prompt or messages"),
        (Chat, {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "either prompt or messages"),
        (Chat, {"messages": [{"role": "robot", "content": "b"}]}, "$.messages[0].role"),
        (Chat, {"prompt": "a", "max_tokens": 0}, "$.max_tokens"),
        (Chat, {"prompt": "a", "temperature": 3}, "$.temperature"),
        (Chat, {"prompt": "a", "stream": False}, "unknown field"),
    ],
)
def test_the_contracts_refuse_bad_input(
    contract: type[msgspec.Struct], payload: dict[str, Any], path: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as refusal:
        msgspec.convert(payload, contract)
    assert path in str(refusal.value)
