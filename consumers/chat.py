"""Talk to an OpenAI-compatible endpoint: one request, its answer read as a stream of events.

The protocol is `POST {base}/chat/completions` with `"stream": true`, answered by server-sent events:

    data: {"model": "...", "choices": [{"delta": {"content": "Hel"}, "finish_reason": null}]}
    data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}
    data: [DONE]

https://platform.openai.com/docs/api-reference/chat-streaming. Whoever runs the worker chose the
endpoint, so it may be on a private address, and a proxy of the environment is used. What it sends is
bounded all the same.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import httpx
import msgspec

from penstock.consumers.remote import RemoteFailure, judge
from penstock.core.jobs.ai import ChatResult, Usage

MAX_STREAM_BYTES: Final = 32 * 1024 * 1024
MAX_EVENT_BYTES: Final = 256 * 1024
MAX_ANSWER_CHARS: Final = 50_000
MAX_ERROR_BYTES: Final = 4_096
SILENCE_S: Final = 60.0  # the longest wait for the next token; a job's own timeout bounds the whole


class Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class Choice(msgspec.Struct, frozen=True):
    delta: Delta = Delta()
    finish_reason: str | None = None


class Chunk(msgspec.Struct, frozen=True):
    """One event of the stream; what else endpoints put into it is left aside."""

    model: str = ""
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    error: Any = None


async def ask(
    base_url: str, api_key: str, request: dict[str, Any], heard: Callable[[int, str], None]
) -> ChatResult:
    """Send `request` and answer the whole text; `heard(tokens, text so far)` is called at each token.

    Raises what `judge` does for the status, and RemoteFailure for a stream that breaks off.
    """
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    url = f"{base_url.rstrip('/')}/chat/completions"
    body = {**request, "stream": True, "stream_options": {"include_usage": True}}
    try:
        async with (
            httpx.AsyncClient(timeout=httpx.Timeout(SILENCE_S, connect=10.0), headers=headers) as client,
            client.stream("POST", url, json=body) as response,
        ):
            judge(response, "" if response.is_success else await _words(response))
            return await _listen(_events(response), request["model"], heard)
    except httpx.TransportError as error:
        raise RemoteFailure(f"{url}: {str(error) or type(error).__name__}") from error


async def _listen(events: AsyncIterator[bytes], model: str, heard: Callable[[int, str], None]) -> ChatResult:
    text, tokens, finish, usage = "", 0, "", None
    async for event in events:
        if event == b"[DONE]":
            break
        chunk = _decode(event)
        model, usage = chunk.model or model, chunk.usage or usage
        for choice in chunk.choices[:1]:
            finish = choice.finish_reason or finish
            if choice.delta.content:
                text, tokens = text + choice.delta.content, tokens + 1
                heard(tokens, text)
        if len(text) > MAX_ANSWER_CHARS:
            return ChatResult(text[:MAX_ANSWER_CHARS], model, "length", usage)
    if not finish:
        raise RemoteFailure(f"the answer broke off after {tokens} tokens")
    return ChatResult(text, model, finish, usage)


def _decode(event: bytes) -> Chunk:
    try:
        chunk = msgspec.json.decode(event, type=Chunk)
    except msgspec.DecodeError as error:
        raise RemoteFailure(f"the endpoint sent what is no chat event: {error}") from error
    if chunk.error is not None:
        raise RemoteFailure(f"the endpoint gave up: {_message(chunk.error)}")
    return chunk


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """The `data` of each server-sent event (these endpoints send one line of it per event)."""
    rest, size = b"", 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > MAX_STREAM_BYTES:
            raise RemoteFailure(f"the endpoint sent more than {MAX_STREAM_BYTES} bytes")
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise RemoteFailure(f"the endpoint sent an event of more than {MAX_EVENT_BYTES} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


async def _words(response: httpx.Response) -> str:
    """What an error answer says: the message of its JSON, or its first characters."""
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) >= MAX_ERROR_BYTES:
            break
    try:
        return _message(msgspec.json.decode(body)["error"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return body[:300].decode(errors="replace").strip()


def _message(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
