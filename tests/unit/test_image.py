"""The image handlers do what they say on real pictures, and bad pictures fail for good, with a reason."""

import contextlib
import io
import random
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageStat

from handling import Desk
from penstock.consumers import image, image_steps
from penstock.core.errors import Permanent
from penstock.core.jobs.image import (
    ConvertImage,
    CropImage,
    ImageResult,
    MakeThumbnails,
    ResizeImage,
    Size,
    Thumbnail,
    WatermarkImage,
)

PHOTO = Path(__file__).parents[2] / "ui/static/demo/hubble-deep-field.jpg"
RED = (220, 20, 20)
BLUE = (20, 20, 220)
GREEN = (20, 160, 20)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def halves(width: int = 300, height: int = 200, left: Any = RED, right: Any = BLUE) -> Image.Image:
    """A picture whose left half has one colour and whose right half another."""
    picture = Image.new("RGB", (width, height), left)
    ImageDraw.Draw(picture).rectangle((width // 2, 0, width, height), fill=right)
    return picture


def noise(width: int, height: int) -> Image.Image:
    pixels = random.Random(1).randbytes(width * height * 3)
    return Image.frombytes("RGB", (width, height), pixels)


def file_of(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def kept(desk: Desk, data: bytes, filename: str = "photo.jpg") -> str:
    return desk.store.put(data, content_type="image/png", filename=filename).id


def made(desk: Desk, result: ImageResult) -> Image.Image:
    """The picture of a result, after the result was held against it."""
    data = desk.store.get(result.artifact)
    picture = Image.open(io.BytesIO(data))
    assert (result.width, result.height) == picture.size
    assert result.bytes == len(data)
    assert result.artifact == f"sha256-{result.sha256}"
    assert result.content_type == f"image/{(picture.format or '').lower()}"
    return picture


def near(pixel: Any, colour: tuple[int, ...], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, colour, strict=True))


def test_resize_answers_a_new_artifact_and_reports_each_stage(desk: Desk) -> None:
    source = kept(desk, file_of(halves(), "JPEG"), "sea.jpg")
    result = image.resize(ResizeImage(source=source, width=150), desk.context())
    picture = made(desk, result)
    assert picture.size == (150, 100)
    assert picture.format == "JPEG"
    assert near(picture.getpixel((20, 50)), RED)
    assert near(picture.getpixel((130, 50)), BLUE)
    assert desk.store.describe(result.artifact).filename == "sea-150x100.jpg"
    assert [body["message"] for body in desk.progress()] == [
        "reading",
        "decoding",
        "resizing",
        "encoding",
        "stored",
    ]
    assert desk.fractions() == sorted(desk.fractions())
    assert desk.fractions()[-1] == 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (Size(width=150), (150, 100)),
        (Size(height=50), (75, 50)),
        (Size(width=150, height=150), (150, 100)),
        (Size(width=1000, height=1000), (300, 200)),
        (Size(width=100, height=100, fit="contain"), (100, 100)),
        (Size(width=600, height=600, fit="contain"), (600, 600)),
        (Size(width=100, height=100, fit="cover"), (100, 100)),
        (Size(width=600, fit="cover"), (600, 400)),
        (Size(width=40, height=90, fit="fill"), (40, 90)),
    ],
)
def test_fit_gives_the_size_that_its_rule_says(size: Size, expected: tuple[int, int]) -> None:
    picture = image_steps.decode(file_of(halves()))
    assert image_steps.fit(picture, size, "#ffffff").size == expected


def test_contain_pads_with_the_background_and_cover_cuts() -> None:
    picture = image_steps.decode(file_of(halves()))
    contained = image_steps.fit(picture, Size(width=100, height=100, fit="contain"), "#14a014")
    assert near(contained.getpixel((50, 5)), GREEN)
    assert near(contained.getpixel((10, 50)), RED)
    covered = image_steps.fit(picture, Size(width=100, height=100, fit="cover"), "#14a014")
    assert near(covered.getpixel((5, 5)), RED)
    assert near(covered.getpixel((95, 95)), BLUE)


@pytest.mark.parametrize("width", [1, 7, 301, 500, 999])
def test_a_width_asked_for_is_the_width_given(width: int) -> None:
    picture = image_steps.decode(file_of(noise(1000, 872), "JPEG"), enough=width)
    assert image_steps.fit(picture, Size(width=width), "#ffffff").size == (
        width,
        max(1, round(872 * width / 1000)),
    )


def test_a_large_jpeg_is_decoded_small_but_keeps_its_measures() -> None:
    data = file_of(halves(3001, 2000), "JPEG")
    picture = image_steps.decode(data, enough=100)
    assert picture.image.width < 1000
    assert (picture.width, picture.height) == (3001, 2000)
    assert image_steps.fit(picture, Size(height=100), "#ffffff").size == (150, 100)


def test_thumbnails_come_from_one_source_in_the_order_asked_for(desk: Desk) -> None:
    source = kept(desk, file_of(halves(), "JPEG"))
    sizes = (
        Thumbnail(name="small", width=32, height=32, fit="cover"),
        Thumbnail(name="wide", width=120),
        Thumbnail(height=40),
    )
    result = image.thumbnails(MakeThumbnails(source=source, sizes=sizes, format="webp"), desk.context())
    assert [made(desk, one).size for one in result.images] == [(32, 32), (120, 80), (60, 40)]
    assert [one.name for one in result.images] == ["small", "wide", ""]
    assert msgspec.json.decode(msgspec.json.encode(result))["images"][1]["width"] == 120
    assert desk.progress()[-1] == {"fraction": 1, "message": "stored"}


def test_a_real_photo_keeps_its_look(desk: Desk) -> None:
    photo = Image.open(PHOTO).convert("RGB")
    source = kept(desk, PHOTO.read_bytes(), PHOTO.name)
    sizes = tuple(Thumbnail(width=width) for width in (400, 200, 64))
    for target in ("jpeg", "webp", "avif"):
        result = image.thumbnails(MakeThumbnails(source=source, sizes=sizes, format=target), desk.context())
        for one in result.images:
            picture = made(desk, one).convert("RGB")
            wanted = photo.resize(picture.size, Image.Resampling.LANCZOS)
            off = ImageStat.Stat(ImageChops.difference(picture, wanted)).mean
            assert max(off) < 6, f"{target} {one.width}: {off} of 255 off on average"
            assert one.bytes < PHOTO.stat().st_size / 3


def test_more_pictures_than_cores_are_worked_on_in_turn(desk: Desk) -> None:
    sources = [kept(desk, file_of(noise(300 + number, 300), "JPEG")) for number in range(24)]
    with ThreadPoolExecutor(24) as pool:
        jobs = (ResizeImage(source=source, width=50, height=50, fit="fill") for source in sources)
        results = list(pool.map(lambda job: image.resize(job, desk.context()), jobs))
    assert [(one.width, one.height) for one in results] == [(50, 50)] * 24


@pytest.mark.parametrize("target", ["jpeg", "png", "webp", "avif"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
def test_convert_reads_and_writes_every_format(desk: Desk, source: str, target: Any) -> None:
    job = ConvertImage(source=kept(desk, file_of(halves(64, 48), source)), format=target)
    picture = made(desk, image.convert(job, desk.context())).convert("RGB")
    assert picture.size == (64, 48)
    assert near(picture.getpixel((8, 24)), RED, 30)
    assert near(picture.getpixel((56, 24)), BLUE, 30)


def test_convert_obeys_quality(desk: Desk) -> None:
    source = kept(desk, file_of(noise(200, 200)))
    rough = image.convert(ConvertImage(source=source, format="jpeg", quality=10), desk.context())
    fine = image.convert(ConvertImage(source=source, format="jpeg", quality=95), desk.context())
    assert rough.bytes * 3 < fine.bytes


def test_crop_cuts_the_rectangle_and_refuses_one_that_sticks_out(desk: Desk) -> None:
    source = kept(desk, file_of(halves()))
    result = image.crop(CropImage(source=source, x=140, y=10, width=20, height=30), desk.context())
    picture = made(desk, result)
    assert picture.size == (20, 30)
    assert near(picture.getpixel((3, 3)), RED)
    assert near(picture.getpixel((16, 3)), BLUE)
    with pytest.raises(Permanent, match="300 x 200 pixels"):
        image.crop(CropImage(source=source, x=290, y=0, width=20, height=30), desk.context())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_a_camera_noted_is_applied(orientation: int) -> None:
    upright = halves(320, 160)
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turned[orientation]) if orientation in turned else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = image_steps.decode(file_of(stored, "JPEG", exif=exif), enough=40)
    assert (picture.width, picture.height) == (320, 160)
    result = image_steps.fit(picture, Size(width=80), "#ffffff")
    assert result.size == (80, 40)
    assert near(result.getpixel((5, 20)), RED)
    assert near(result.getpixel((74, 20)), BLUE)


def test_metadata_is_dropped_unless_asked_for(desk: Desk) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    exif[0x0112] = 6
    source = kept(desk, file_of(halves(), "JPEG", exif=exif, comment=b"secret comment", dpi=(300, 300)))
    for target in ("jpeg", "png", "webp", "avif"):
        result = image.convert(ConvertImage(source=source, format=target), desk.context())
        data = desk.store.get(result.artifact)
        assert b"taken at home" not in data
        assert b"secret comment" not in data
        result = image.convert(ConvertImage(source=source, format=target, metadata="keep"), desk.context())
        picture = made(desk, result)
        assert picture.size == (200, 300)
        assert picture.getexif()[0x010E] == "taken at home"
        assert picture.getexif().get(0x0112, 1) == 1, "else a viewer would turn it a second time"


def test_transparency_becomes_the_background_in_jpeg_and_stays_in_the_others(desk: Desk) -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    ImageDraw.Draw(clear).rectangle((20, 0, 40, 40), fill=(*BLUE, 255))
    palette = halves(40, 40).quantize(4)
    for data in (file_of(clear), file_of(clear, "WEBP", lossless=True), file_of(clear, "GIF")):
        job = ConvertImage(source=kept(desk, data), format="jpeg", background="#14a014")
        picture = made(desk, image.convert(job, desk.context()))
        assert near(picture.getpixel((5, 20)), GREEN)
        assert near(picture.getpixel((35, 20)), BLUE, 25)
        job = ConvertImage(source=kept(desk, data), format="png")
        assert made(desk, image.convert(job, desk.context())).getpixel((5, 20))[3] == 0  # type: ignore[index]
    opaque = image.convert(ConvertImage(source=kept(desk, file_of(palette)), format="png"), desk.context())
    assert made(desk, opaque).mode == "RGB"


def test_cmyk_grey_16_bit_and_profiles_become_srgb() -> None:
    cmyk = image_steps.decode(file_of(halves().convert("CMYK"), "JPEG"))
    assert cmyk.image.mode == "RGB"
    assert near(cmyk.image.getpixel((20, 20)), RED, 25)
    grey = image_steps.decode(file_of(Image.new("L", (9, 9), 99)))
    assert grey.image.getpixel((4, 4)) == (99, 99, 99)
    deep = image_steps.decode(file_of(Image.new("I;16", (9, 9), 128 * 257)))
    assert deep.image.getpixel((4, 4)) == (128, 128, 128)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profiled = image_steps.decode(file_of(halves(), icc_profile=lab))
    assert near(profiled.image.getpixel((20, 20)), RED)
    assert "icc_profile" not in profiled.image.info
    nonsense = image_steps.decode(file_of(halves(), icc_profile=b"this is no profile"))
    assert near(nonsense.image.getpixel((20, 20)), RED)


def test_of_an_animation_the_first_frame_counts(desk: Desk) -> None:
    frames = [Image.new("RGB", (30, 30), colour) for colour in (RED, GREEN, BLUE)]
    for format in ("GIF", "WEBP", "PNG", "AVIF"):
        data = file_of(frames[0], format, save_all=True, append_images=frames[1:], duration=100)
        result = image.convert(ConvertImage(source=kept(desk, data), format="png"), desk.context())
        picture = made(desk, result)
        assert getattr(picture, "n_frames", 1) == 1
        assert near(picture.convert("RGB").getpixel((15, 15)), RED, 25)


@pytest.mark.parametrize(
    ("position", "marked", "clear"),
    [
        ("bottom-right", (280, 190), (10, 10)),
        ("top-left", (20, 10), (280, 190)),
        ("center", (150, 100), (10, 10)),
        ("bottom", (150, 190), (150, 10)),
        ("left", (20, 100), (280, 100)),
    ],
)
def test_a_mark_is_put_where_and_as_strong_as_asked(
    desk: Desk, position: Any, marked: tuple[int, int], clear: tuple[int, int]
) -> None:
    source = kept(desk, file_of(Image.new("RGB", (300, 200), "black")))
    mark = kept(desk, file_of(Image.new("RGB", (100, 50), "white")))
    job = WatermarkImage(source=source, mark=mark, position=position, opacity=0.5, scale=0.25)
    picture = made(desk, image.watermark(job, desk.context())).convert("RGB")
    assert near(picture.getpixel(marked), (127, 127, 127), 3)
    assert picture.getpixel(clear) == (0, 0, 0)


def test_a_text_as_mark_is_as_wide_as_asked(desk: Desk) -> None:
    source = kept(desk, file_of(Image.new("RGB", (400, 200), "black")))
    job = WatermarkImage(source=source, text="Penstock", position="center", opacity=1, scale=0.5)
    picture = made(desk, image.watermark(job, desk.context())).convert("L")
    box = picture.point(lambda value: 255 if value > 40 else 0).getbbox()
    assert box is not None
    assert box[2] - box[0] == pytest.approx(200, abs=8)
    assert (box[0] + box[2]) / 2 == pytest.approx(200, abs=5)
    long = WatermarkImage(source=source, text="long " * 39 + "\n\n\nend", scale=0.02)
    assert image.watermark(long, desk.context()).width == 400


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes with a header that announces a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png_that_claims(60_000, 60_000), "too large: the limit is 64,000,000 pixels"),
        (png_that_claims(9_000, 9_000), "too large: the limit is 64,000,000 pixels"),
        (file_of(noise(200, 200), "JPEG")[:-9000], "broken"),
        (file_of(noise(200, 200))[:20_000], "broken"),
        (file_of(noise(200, 200), "WEBP")[:9_000], "broken"),
        (b"", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (b"%PDF-1.7 and so on", "no picture"),
        (file_of(halves(), "TIFF"), "no picture"),
        (file_of(halves(), "BMP"), "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
    ],
)
def test_a_bad_picture_fails_for_good_with_its_reason(desk: Desk, data: bytes, reason: str) -> None:
    job = ResizeImage(source=kept(desk, data), width=100)
    with pytest.raises(Permanent, match=reason):
        image.resize(job, desk.context())
    good = ResizeImage(source=kept(desk, file_of(halves())), width=100)
    assert image.resize(good, desk.context()).width == 100


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_never_raise_anything_but_permanent(seed: int) -> None:
    chance = random.Random(seed)
    format = chance.choice(["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
    data = bytearray(file_of(noise(40, 40), format))
    for _ in range(chance.randint(1, 30)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    with contextlib.suppress(Permanent):
        assert image_steps.decode(bytes(data), enough=20).image.mode in {"RGB", "RGBA"}


def test_a_size_that_follows_is_bounded() -> None:
    strip = image_steps.decode(file_of(Image.new("RGB", (10, 4000))))
    with pytest.raises(Permanent, match="limit is 8000"):
        image_steps.fit(strip, Size(width=1000, fit="fill"), "#ffffff")


def test_a_missing_artifact_fails_for_good(desk: Desk) -> None:
    with pytest.raises(Permanent, match="no artifact"):
        image.resize(ResizeImage(source="sha256-" + "0" * 64, width=10), desk.context())


@pytest.mark.parametrize(
    ("contract", "payload", "path"),
    [
        (ResizeImage, {"source": "file:///etc/passwd", "width": 10}, "$.source"),
        (ResizeImage, {"source": "https://example.org/a b", "width": 10}, "$.source"),
        (ResizeImage, {"source": "https://example.org/a\n", "width": 10}, "$.source"),
        (ResizeImage, {"source": "https://example.org/a", "width": 9000}, "$.width"),
        (ResizeImage, {"source": "https://example.org/a"}, "width, height or both"),
        (ResizeImage, {"source": "https://example.org/a", "width": 9, "colour": 1}, "unknown field"),
        (MakeThumbnails, {"source": "https://example.org/a", "sizes": []}, "$.sizes"),
        (MakeThumbnails, {"source": "https://example.org/a", "sizes": [{"width": 0}]}, "$.sizes[0].width"),
        (ConvertImage, {"source": "https://example.org/a", "format": "bmp"}, "$.format"),
        (ConvertImage, {"source": "https://example.org/a", "format": "png", "quality": 0}, "$.quality"),
        (WatermarkImage, {"source": "https://example.org/a"}, "either text or mark"),
    ],
)
def test_a_contract_refuses_bad_input_and_names_the_field(
    contract: type[msgspec.Struct], payload: dict[str, Any], path: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as refusal:
        msgspec.convert(payload, contract)
    assert path in str(refusal.value)
