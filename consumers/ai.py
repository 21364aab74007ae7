"""The ai worker's handlers.

`ai.language` and `ai.ocr` run models on this machine, loaded at the first job and kept; `ai.chat` asks
the endpoint of the settings, and its words arrive as progress, a few times a second.
"""

import time
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from penstock.consumers import image_steps
from penstock.consumers.chat import ask
from penstock.consumers.context import Context
from penstock.consumers.handlers import handler
from penstock.consumers.sources import read_source
from penstock.core.errors import Permanent
from penstock.core.jobs.ai import (
    Chat,
    ChatResult,
    Confidence,
    DetectLanguage,
    LanguageResult,
    ReadText,
    TextLine,
    TextResult,
)
from penstock.core.settings import read_settings

if TYPE_CHECKING:
    from lingua import LanguageDetector

LANGUAGES: Final = ("english", "german", "french", "spanish", "italian", "portuguese", "dutch", "polish")
PROGRESS_EVERY_S: Final = 0.2
PROGRESS_TAIL_CHARS: Final = 2_000

# One thread loads a model while the others wait; and pictures are read one by one, because that model
# takes all cores for each.
_loading_detector: Final = Lock()
_reading: Final = Lock()


@handler(DetectLanguage, pure=True)
def language(job: DetectLanguage, context: Context) -> LanguageResult:
    with _loading_detector:
        detector = _detector()
    ranked = tuple(
        Confidence(one.language.iso_code_639_1.name.lower(), round(one.value, 4))
        for one in detector.compute_language_confidence_values(job.text)
    )
    return LanguageResult(
        language=ranked[0].language if ranked and ranked[0].confidence > 0 else None, confidences=ranked
    )


@handler(ReadText, pure=True)
def ocr(job: ReadText, context: Context) -> TextResult:
    if find_spec("rapidocr") is None or find_spec("onnxruntime") is None:
        raise Permanent("ai.ocr needs the extra `ocr`: pip install 'penstock[ocr]'")
    context.progress(0.1, "reading the picture")
    data = read_source(job.source, context).data
    with _reading:
        context.progress(0.3, "reading its text")
        picture = image_steps.decode(data).image
        found = _reader()(image_steps.flatten(picture, "#ffffff"))
    boxes = () if found.boxes is None else found.boxes
    lines = tuple(
        TextLine(text, round(float(score), 4), _box(corners))
        for text, score, corners in zip(found.txts or (), found.scores or (), boxes, strict=True)
    )
    return TextResult(text="\n".join(line.text for line in lines), lines=lines)


@handler(Chat)
async def chat(job: Chat, context: Context) -> ChatResult:
    settings = read_settings()
    model = job.model or settings.ai_model
    if not settings.ai_base_url:
        raise Permanent("ai.chat needs an endpoint: set PENSTOCK_AI_BASE_URL, like http://localhost:11434/v1")
    if not model:
        raise Permanent("ai.chat needs a model: set PENSTOCK_AI_MODEL, or give `model` in the job")
    result = await ask(
        settings.ai_base_url, settings.ai_api_key.reveal(), _request(job, model), _Narrator(job, context)
    )
    context.progress(1, "answered", {"text": result.text[-PROGRESS_TAIL_CHARS:], "chars": len(result.text)})
    return result


class _Narrator:
    """Reports the text so far, at most five times a second and its end only: the log stays small."""

    def __init__(self, job: Chat, context: Context) -> None:
        self._job = job
        self._context = context
        self._next = 0.0

    def __call__(self, tokens: int, text: str) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PROGRESS_EVERY_S
        data = {"text": text[-PROGRESS_TAIL_CHARS:], "chars": len(text)}
        self._context.progress(tokens / self._job.max_tokens, f"{tokens} tokens", data)


def _request(job: Chat, model: str) -> dict[str, Any]:
    messages = [{"role": one.role, "content": one.content} for one in job.messages]
    if job.prompt:
        messages = [{"role": "user", "content": job.prompt}]
    if job.system:
        messages.insert(0, {"role": "system", "content": job.system})
    request: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": job.max_tokens}
    if job.temperature is not None:
        request["temperature"] = job.temperature
    return request


@cache
def _detector() -> "LanguageDetector":
    from lingua import Language, LanguageDetectorBuilder

    chosen = [Language.from_str(name) for name in LANGUAGES]
    return LanguageDetectorBuilder.from_languages(*chosen).with_preloaded_language_models().build()


@cache
def _reader() -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(params={"Global.log_level": "warning"})


def _box(corners: Any) -> tuple[int, int, int, int]:
    """The upright rectangle around four corners."""
    across, down = [float(x) for x, _ in corners], [float(y) for _, y in corners]
    return round(min(across)), round(min(down)), round(max(across)), round(max(down))
