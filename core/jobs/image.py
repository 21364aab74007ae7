"""Contracts of the image jobs: a picture from an artifact or a URL in, new artifacts out.

    image.resize       one new size
    image.thumbnails   several sizes from one decoding
    image.convert      another format
    image.crop         a rectangle of it
    image.watermark    a text or a small picture over it

The orientation that a camera notes in EXIF is applied, colours become sRGB, metadata is dropped unless
asked for, and of an animation the first frame counts.
"""

from typing import Annotated, Final, Literal

import msgspec

from penstock.core.contracts import contract

MAX_SIDE: Final = 8_000
MAX_THUMBNAILS: Final = 20

END: Final = r"(?![\s\S])"  # the very end: `$` would let a line break pass
SOURCE_PATTERN: Final = rf"^(sha256-[0-9a-f]{{64}}|https?://[^\s\x00-\x1f\x7f]+){END}"

Source = Annotated[
    str,
    msgspec.Meta(
        pattern=SOURCE_PATTERN,
        max_length=2048,
        description="An artifact's id, or an http(s) URL with a public address.",
    ),
]
Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
Colour = Annotated[
    str, msgspec.Meta(pattern=rf"^#[0-9a-fA-F]{{6}}{END}", description="As in HTML, like #ffffff.")
]
Format = Literal["jpeg", "png", "webp", "avif"]
Fit = Literal["inside", "contain", "cover", "fill"]
Position = Literal[
    "top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right"
]


class Picture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all image jobs share: where the picture comes from and how the new one is written.

    `format`: that of the source unless given (GIF becomes PNG). `quality` counts for JPEG, WebP and
    AVIF. `background` shows where there was transparency and the format has none, and around a
    picture that was fitted with `contain`.
    """

    source: Source
    format: Format | None = None
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 82
    background: Colour = "#ffffff"
    metadata: Literal["strip", "keep"] = "strip"


class Size(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A size in pixels; one side may be left out and follows from the picture's proportions.

    `inside` shrinks into the box and never enlarges; `contain` does the same to fill one side and
    pads the other with the background; `cover` fills the box and cuts off what stands out; `fill`
    stretches.
    """

    width: Side | None = None
    height: Side | None = None
    fit: Fit = "inside"

    def __post_init__(self) -> None:
        if self.width is None and self.height is None:
            raise ValueError("give width, height or both")


class Thumbnail(Size, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of several sizes; `name` is repeated in the result."""

    name: Annotated[str, msgspec.Meta(max_length=64)] = ""


@contract("image.resize", attempts=4)
class ResizeImage(Picture, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resize a picture."""

    width: Side | None = None
    height: Side | None = None
    fit: Fit = "inside"

    def __post_init__(self) -> None:
        _ = self.size  # checks it

    @property
    def size(self) -> Size:
        return Size(width=self.width, height=self.height, fit=self.fit)


@contract("image.thumbnails", attempts=4, timeout=120)
class MakeThumbnails(Picture, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Make several sizes of one picture."""

    sizes: Annotated[tuple[Thumbnail, ...], msgspec.Meta(min_length=1, max_length=MAX_THUMBNAILS)]


@contract("image.convert", attempts=4)
class ConvertImage(Picture, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Convert a picture to JPEG, PNG, WebP or AVIF."""

    format: Format


@contract("image.crop", attempts=4)
class CropImage(Picture, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cut a rectangle out of a picture, in pixels from its top left after EXIF orientation."""

    width: Side
    height: Side
    x: Offset = 0
    y: Offset = 0


@contract("image.watermark", attempts=4)
class WatermarkImage(Picture, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Put a text or a small picture over a picture.

    `scale` is the mark's width as a share of the picture's, `margin` its distance from the edge as
    a share of the picture's shorter side.
    """

    text: Annotated[str, msgspec.Meta(max_length=200)] = ""
    mark: Source | None = None
    position: Position = "bottom-right"
    opacity: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    scale: Annotated[float, msgspec.Meta(ge=0.02, le=1)] = 0.25
    margin: Annotated[float, msgspec.Meta(ge=0, le=0.4)] = 0.03
    colour: Colour = "#ffffff"

    def __post_init__(self) -> None:
        if bool(self.text.strip()) == (self.mark is not None):
            raise ValueError("give either text or mark")


class ImageResult(msgspec.Struct, frozen=True):
    """One new picture: its artifact's id, its sides in pixels, its size in bytes."""

    artifact: str
    width: int
    height: int
    bytes: int
    content_type: str
    sha256: str
    name: str = ""


class ThumbnailsResult(msgspec.Struct, frozen=True):
    """The new pictures, in the order of the sizes asked for."""

    images: tuple[ImageResult, ...]
