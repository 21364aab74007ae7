"""The image worker's handlers: read, decode, work, encode, store, saying so at each stage.

They run in threads. Reading and storing are at the ends, `image_steps` is between; a source that
can't be had or decoded fails for good with the reason, and the worker goes on.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from threading import BoundedSemaphore
from typing import Final

import msgspec
from PIL import Image

from penstock.consumers import image_steps as steps
from penstock.consumers.context import Context
from penstock.consumers.handlers import handler
from penstock.consumers.sources import read_source, store_of
from penstock.core.errors import Permanent, TooLarge
from penstock.core.jobs.image import (
    ConvertImage,
    CropImage,
    ImageResult,
    MakeThumbnails,
    Picture,
    ResizeImage,
    Size,
    ThumbnailsResult,
    WatermarkImage,
)

MAX_AT_ONCE: Final = 8

READING: Final = 0.05
DECODING: Final = 0.25
WORKING: Final = 0.45
ENCODING: Final = 0.65


# Pillow keeps a core busy and holds a whole picture, up to a few hundred MB for the largest: so no more
# pictures are open at once than there are cores to work on them, however many jobs run in threads.
_cores: Final = BoundedSemaphore(min(os.cpu_count() or 1, MAX_AT_ONCE))


@handler(ResizeImage, pure=True)
def resize(job: ResizeImage, context: Context) -> ImageResult:
    with _opened(job, context, enough=_longest([job.size])) as source:
        context.progress(WORKING, "resizing")
        return _save(steps.fit(source.picture, job.size, job.background), source, job, context)


@handler(MakeThumbnails, pure=True)
def thumbnails(job: MakeThumbnails, context: Context) -> ThumbnailsResult:
    images = []
    with _opened(job, context, enough=_longest(job.sizes)) as source:
        for number, size in enumerate(job.sizes):
            done = WORKING + (1 - WORKING) * number / len(job.sizes)
            context.progress(done, f"thumbnail {number + 1} of {len(job.sizes)}")
            image = steps.fit(source.picture, size, job.background)
            images.append(_store(image, source, job, context, label=size.name))
    context.progress(1, "stored")
    return ThumbnailsResult(images=tuple(images))


@handler(ConvertImage, pure=True)
def convert(job: ConvertImage, context: Context) -> ImageResult:
    with _opened(job, context) as source:
        return _save(source.picture.image, source, job, context)


@handler(CropImage, pure=True)
def crop(job: CropImage, context: Context) -> ImageResult:
    with _opened(job, context) as source:
        context.progress(WORKING, "cropping")
        return _save(steps.crop(source.picture, job.x, job.y, job.width, job.height), source, job, context)


@handler(WatermarkImage, pure=True)
def watermark(job: WatermarkImage, context: Context) -> ImageResult:
    given = None if job.mark is None else read_source(job.mark, context).data
    with _opened(job, context) as source:
        context.progress(WORKING, "marking")
        return _save(_marked(source.picture.image, job, given), source, job, context)


def _marked(image: Image.Image, job: WatermarkImage, given: bytes | None) -> Image.Image:
    margin = round(min(image.size) * job.margin)
    width = max(1, min(round(image.width * job.scale), image.width - 2 * margin))
    height = max(1, image.height - 2 * margin)
    if given is None:
        mark = steps.write_mark(job.text.strip(), job.colour, width, height)
    else:
        mark = steps.shrink_mark(steps.decode(given).image, width, height)
    return steps.overlay(image, mark, position=job.position, opacity=job.opacity, margin=margin)


class _Opened(msgspec.Struct, frozen=True):
    """A job's picture, and the stem of its filename."""

    picture: steps.Decoded
    stem: str


@contextmanager
def _opened(job: Picture, context: Context, enough: int | None = None) -> Iterator[_Opened]:
    """The job's picture, decoded, while there is a core for it."""
    context.progress(READING, "reading")
    source = read_source(job.source, context)
    with _cores:
        context.progress(DECODING, "decoding")
        picture = steps.decode(source.data, enough=enough)
        yield _Opened(picture, PurePath(source.filename).stem or "image")


def _save(image: Image.Image, source: _Opened, job: Picture, context: Context) -> ImageResult:
    context.progress(ENCODING, "encoding")
    result = _store(image, source, job, context)
    context.progress(1, "stored")
    return result


def _store(
    image: Image.Image, source: _Opened, job: Picture, context: Context, label: str = ""
) -> ImageResult:
    """Encode as the job says and keep it, under a name like `photo-400x300.webp`."""
    format = job.format or source.picture.format
    exif = source.picture.exif if job.metadata == "keep" else b""
    data = steps.encode(image, format, quality=job.quality, background=job.background, exif=exif)
    try:
        artifact = store_of(context).put(
            data,
            content_type=f"image/{format}",
            filename=f"{source.stem}-{image.width}x{image.height}.{'jpg' if format == 'jpeg' else format}",
        )
    except TooLarge as error:
        raise Permanent(f"the new picture is too large to keep: {error}") from error
    return ImageResult(
        artifact=artifact.id,
        width=image.width,
        height=image.height,
        bytes=artifact.size,
        content_type=f"image/{format}",
        sha256=artifact.sha256,
        name=label,
    )


def _longest(sizes: Sequence[Size]) -> int:
    """The longest side asked for: a source at least as long on both sides is large enough."""
    return max(side for size in sizes for side in (size.width, size.height) if side is not None)
