"""Contracts of the ai jobs: two that need no network, and a chat with any OpenAI-compatible endpoint."""

from typing import Annotated, Final, Literal

import msgspec

from penstock.core.contracts import Backoff, contract
from penstock.core.jobs.image import Source

MAX_TEXT_CHARS: Final = 100_000
MAX_MESSAGES: Final = 200

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARS)]


@contract("ai.language", attempts=2, timeout=30)
class DetectLanguage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tell the language of a text, by a model on this machine."""

    text: Text


class Confidence(msgspec.Struct, frozen=True):
    """A language (ISO 639-1) and how sure the model is, from 0 to 1; all of a text add up to 1."""

    language: str
    confidence: float


class LanguageResult(msgspec.Struct, frozen=True):
    """The likeliest language, none for a text without words the model knows; the likeliest first."""

    language: str | None
    confidences: tuple[Confidence, ...]


@contract("ai.ocr", attempts=3, timeout=120)
class ReadText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Read the text in a picture, by a model on this machine (extra `ocr`)."""

    source: Source


class TextLine(msgspec.Struct, frozen=True):
    """A line found: its text, confidence from 0 to 1, and box as left, top, right, bottom in pixels."""

    text: str
    confidence: float
    box: tuple[int, int, int, int]


class TextResult(msgspec.Struct, frozen=True):
    """All lines from top to bottom; `text` joins them by line breaks."""

    text: str
    lines: tuple[TextLine, ...]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


@contract("ai.chat", attempts=5, timeout=300, backoff=Backoff(base=2.0))
class Chat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask a language model; its words arrive as progress.

    Give `prompt` or `messages`; `system` goes before either. `model` is that of the settings unless
    given.
    """

    prompt: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_CHARS)] = ""
    messages: Annotated[tuple[Message, ...], msgspec.Meta(max_length=MAX_MESSAGES)] = ()
    system: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_CHARS)] = ""
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=32_768)] = 1_024
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    model: Annotated[str, msgspec.Meta(max_length=200)] = ""

    def __post_init__(self) -> None:
        if bool(self.prompt) == bool(self.messages):
            raise ValueError("give either prompt or messages")


class Usage(msgspec.Struct, frozen=True):
    """Tokens counted by the endpoint."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class ChatResult(msgspec.Struct, frozen=True):
    """The answer; `finish_reason` as the endpoint says, "length" when it was cut off."""

    text: str
    model: str
    finish_reason: str
    usage: Usage | None
