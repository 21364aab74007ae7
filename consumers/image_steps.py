"""The steps of the image jobs: pure functions on Pillow images, none of which knows a job.

    decode → (fit | crop | overlay) → encode

A decoded picture is RGB, or RGBA where it has transparency, in sRGB, upright, and without metadata.
Pictures are untrusted: only the decoders named here are tried, the size is read and bounded before a
pixel is decoded, and whatever a decoder says about broken data is a Permanent failure. Pillow lets
other threads run while it decodes, resizes and encodes (except for JPEG with `optimize`: not used).
"""

import io
from contextlib import suppress
from typing import Any, Final

import msgspec
from PIL import ExifTags, Image, ImageCms, ImageColor, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from penstock.core.errors import Permanent
from penstock.core.jobs.image import MAX_SIDE, Format, Position, Size

MAX_PIXELS: Final = 64_000_000
READABLE: Final = ("JPEG", "PNG", "WEBP", "AVIF", "GIF")
WRITTEN_AS: Final[dict[str, Format]] = {
    "JPEG": "jpeg",
    "MPO": "jpeg",  # what some cameras call a JPEG with a preview behind it
    "PNG": "png",
    "WEBP": "webp",
    "AVIF": "avif",
    "GIF": "png",
}
AVIF_SPEED: Final = 8  # of 10: about three times as fast as the default 6, files within a few percent
SIDEWAYS: Final = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height
FONT_PROBE_PX: Final = 64

Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class Decoded(msgspec.Struct, frozen=True):
    """A picture ready for work; `width` and `height` in pixels are those of the source, upright.

    `image` may be smaller, see `decode`.
    """

    image: Image.Image
    width: int
    height: int
    format: Format
    exif: bytes


def decode(data: bytes, *, enough: int | None = None) -> Decoded:
    """Decode the first frame. Raises Permanent for everything that is no sound picture in bounds.

    `enough`: the longest side in pixels that the result needs; a larger JPEG is then decoded at a
    half, a quarter or an eighth of its size, which saves most of the time and memory.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=READABLE)
    except UnidentifiedImageError:
        raise Permanent(f"this is no picture in {', '.join(READABLE)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large() from None
    except Exception as error:
        raise _broken(error) from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large()
    source = WRITTEN_AS[image.format or ""]
    width, height = image.size
    try:
        if enough is not None:
            image.draft(None, (2 * enough, 2 * enough))  # twice: what is scaled by half stays sharp
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS:
            width, height = height, width
        ImageOps.exif_transpose(image, in_place=True)
        exif = image.getexif().tobytes()
        upright = _to_srgb(image)
    except Exception as error:
        raise _broken(error) from error
    upright.info.clear()  # Pillow would write it into the new file
    return Decoded(image=upright, width=width, height=height, format=source, exif=exif)


def fit(picture: Decoded, size: Size, background: str) -> Image.Image:
    """The picture in a new size. Raises Permanent when a side that follows gets too long."""
    width, height = picture.width, picture.height
    box_width = size.width or max(1, round(width * (size.height or height) / height))
    box_height = size.height or max(1, round(height * (size.width or width) / width))
    if max(box_width, box_height) > MAX_SIDE and size.fit != "inside":
        raise Permanent(
            f"the new picture would have {box_width} x {box_height} pixels: the limit is {MAX_SIDE}"
        )
    box = (box_width, box_height)
    match size.fit:
        case "inside":
            given = ((size.width, width), (size.height, height))
            scale = min(1.0, *(side / own for side, own in given if side))
            target = (max(1, round(width * scale)), max(1, round(height * scale)))
            return _resize(picture.image, target)
        case "fill":
            return _resize(picture.image, box)
        case "contain":
            colour = ImageColor.getrgb(background)
            return ImageOps.pad(picture.image, box, Image.Resampling.LANCZOS, color=colour)
        case "cover":
            return ImageOps.fit(picture.image, box, Image.Resampling.LANCZOS)


def crop(picture: Decoded, x: int, y: int, width: int, height: int) -> Image.Image:
    """A rectangle of the picture. Raises Permanent when it is not all inside."""
    if x + width > picture.width or y + height > picture.height:
        raise Permanent(
            f"the rectangle ends at {x + width}, {y + height}: "
            f"the picture has {picture.width} x {picture.height} pixels"
        )
    return picture.image.crop((x, y, x + width, y + height))


def overlay(
    image: Image.Image, mark: Image.Image, *, position: Position, opacity: float, margin: int
) -> Image.Image:
    """The picture with `mark` (RGBA) over it, `margin` pixels from the edges it is near to."""
    spare_x, spare_y = image.width - mark.width, image.height - mark.height
    x, y = spare_x // 2, spare_y // 2
    if "left" in position:
        x = min(margin, spare_x)
    if "right" in position:
        x = max(spare_x - margin, 0)
    if "top" in position:
        y = min(margin, spare_y)
    if "bottom" in position:
        y = max(spare_y - margin, 0)
    faded = mark.copy()
    faded.putalpha(mark.getchannel("A").point(lambda alpha: alpha * opacity))
    result = image.convert("RGBA")
    result.alpha_composite(faded, (x, y))
    return result.convert(image.mode)


def shrink_mark(mark: Image.Image, width: int, height: int) -> Image.Image:
    """A mark as RGBA, as wide as `width` or as high as `height`, whichever is reached first."""
    return ImageOps.contain(mark.convert("RGBA"), (width, height), Image.Resampling.LANCZOS)


def write_mark(text: str, colour: str, width: int, height: int) -> Image.Image:
    """A text as a mark in the font Pillow brings (Latin letters), as large as the box allows."""
    probe = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox(
        (0, 0), text, ImageFont.load_default(FONT_PROBE_PX)
    )
    scale = min(width / max(probe[2], 1), height / max(probe[3], 1))
    font = ImageFont.load_default(max(FONT_PROBE_PX * scale, 1))
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), text, font)
    drawn = (min(max(round(right - left), 1), width), min(max(round(bottom - top), 1), height))
    mark = Image.new("RGBA", drawn, (*ImageColor.getrgb(colour)[:3], 0))
    ImageDraw.Draw(mark).text((-left, -top), text, (*ImageColor.getrgb(colour)[:3], 255), font)
    return mark


def flatten(image: Image.Image, background: str) -> Image.Image:
    """RGB: what was transparent shows the background."""
    if image.mode != "RGBA":
        return image
    flat = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
    return Image.alpha_composite(flat, image).convert("RGB")


def encode(image: Image.Image, format: Format, *, quality: int, background: str, exif: bytes = b"") -> bytes:
    """The picture as a file. Raises Permanent for a size the format can't hold."""
    options: dict[str, Any] = {"exif": exif} if exif else {}
    match format:
        case "jpeg":
            image = flatten(image, background)
            options |= {"quality": quality}
        case "webp":
            options |= {"quality": quality}
        case "avif":
            options |= {"quality": quality, "speed": AVIF_SPEED}
        case "png":
            pass
    file = io.BytesIO()
    try:
        image.save(file, format, **options)
    except (ValueError, OSError) as error:
        raise Permanent(
            f"{image.width} x {image.height} pixels can't be written as {format}: {error}"
        ) from error
    return file.getvalue()


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _to_srgb(image: Image.Image) -> Image.Image:
    """RGB or RGBA in sRGB. A profile that makes no sense is left out of account, as browsers do."""
    mode = "RGBA" if image.has_transparency_data else "RGB"
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):  # 16 bits of grey
        image = image.point(lambda value: value * (1 / 257)).convert("L")
    if image.mode in {"P", "PA", "LA", "1"}:
        image = image.convert(mode)
    if profile:
        with suppress(ImageCms.PyCMSError, OSError):
            srgb = ImageCms.createProfile("sRGB")
            output = image.mode if image.mode == "RGBA" else "RGB"
            converted = ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, outputMode=output)
            image = converted or image
    return image.convert(mode)


def _too_large() -> Permanent:
    return Permanent(f"the picture is too large: the limit is {MAX_PIXELS:,} pixels")


def _broken(error: Exception) -> Exception:
    """A decoder's complaint; but being out of memory is the worker's trouble, not the picture's."""
    if isinstance(error, MemoryError):
        return error
    return Permanent(f"the picture is broken: {error}")
