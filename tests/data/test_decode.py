import io
import json
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from natix_lib.data.decode import MAX_FILE_BYTES, MAX_PIXELS, MAX_SCANNED, decode, open_image, sides
from natix_lib.data.images import prepare
from natix_lib.errors import DataError
from natix_lib.transform import Transform, at_most_shorter_side, upright_rgb
from tests.conftest import ROOT
from tests.data.mutations import in_mode, saved

SMALL, USUAL = (Transform(size, 2 * size, True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) for size in (16, 224))
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(content: bytes, name: bytes, body: bytes) -> bytes:
    """A PNG with a chunk more, after its header."""
    return content[:33] + chunk(name, body) + content[33:]


def png(width: int, height: int) -> bytes:
    """A black RGB image in a few bytes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes((1 + 3 * width) * height), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(
    samples: NDArray[np.generic], order: Literal["<", ">"] = "<", deflate: bool = False, **tags: list[int] | None
) -> bytes:
    """A grey TIFF of one strip, (height, width); `tags` as t262=[0] replace what is written, None leaves it out."""
    height, width = samples.shape
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if deflate else data
    bits, number = 8 * samples.dtype.itemsize, {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    values: dict[int, list[int] | None] = {
        256: [width], 257: [height], 258: [bits], 259: [8 if deflate else 1], 262: [1], 273: [8], 277: [1],
        278: [height], 279: [len(data)], 339: [number],
    }  # fmt: skip
    values |= {int(name[1:]): value for name, value in tags.items()}
    present = sorted((tag, value) for tag, value in values.items() if value is not None)
    data += b"\0" * (len(data) % 2)
    entries, beyond, after = b"", b"", 8 + len(data) + 2 + 12 * len(present) + 4
    for tag, value in present:
        body = struct.pack(f"{order}{len(value)}I", *value)
        place = struct.pack(order + "I", after + len(beyond)) if len(value) > 1 else body
        beyond += body if len(value) > 1 else b""
        entries += struct.pack(order + "HHI", tag, 4, len(value)) + place
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return start + data + struct.pack(order + "H", len(present)) + entries + bytes(4) + beyond


def many_scans(scans: int, side: int) -> bytes:
    """A grey progressive JPEG with empty scans: what `libjpeg` is made to walk for nothing."""
    content = saved("JPEG", "L", {"progressive": True})
    place = content.index(b"\xff\xc2") + 5
    sized = content[:place] + struct.pack(">HH", side, side) + content[place + 4 :]
    return sized[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\0\x10\0\0" * scans + sized[-2:]


def every_way(content: bytes) -> Image.Image:
    """The image as ingest, serving and `natix predict` take it."""
    prepare(content, 64, MAX_PIXELS)
    image = decode(content, MAX_PIXELS)
    assert image.mode == "RGB" and upright_rgb(upright_rgb(image)).tobytes() == image.tobytes()
    assert np.isfinite(SMALL(image)).all()
    return image


def refusal(content: bytes) -> str:
    with pytest.raises(DataError) as first:
        decode(content, MAX_PIXELS)
    with pytest.raises(DataError) as second:
        prepare(content, 64, MAX_PIXELS)
    assert str(first.value) == str(second.value)
    return str(first.value)


# EXIF


def avif_with_broken_exif() -> bytes:
    content = saved("AVIF", "RGB", {"exif": True})
    assert b"MM\0*" in content
    return content.replace(b"MM\0*", b"NN\0*")


def tiff_with_broken_directory() -> bytes:
    return tiff(np.arange(64, dtype=np.uint8).reshape(8, 8), t34665=[7], t34853=[2**31])


BROKEN_EXIF = {
    "png": lambda: with_chunk(saved("PNG", "RGB", {}), b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
    "png raw profile": lambda: with_chunk(saved("PNG", "RGB", {}), b"tEXt", b"Raw profile type exif\0\nexif\n 4\nzz\n"),
    "png text": lambda: with_chunk(saved("PNG", "RGB", {}), b"tEXt", b"exif\0not a header"),
    "webp": lambda: saved("WEBP", "RGB", {"exif": True}).replace(b"MM\0*", b"nope"),
    "jpeg": lambda: saved("JPEG", "RGB", {"exif": True}).replace(b"MM\0*", b"nope"),
    "jpeg, directory cut off": lambda: saved("JPEG", "RGB", {"exif": True}).replace(
        b"MM\0*\0\0\0\x08", b"MM\0*\0\0\0\x2f"
    ),
    "avif": avif_with_broken_exif,
    "tiff": tiff_with_broken_directory,
}


@pytest.mark.parametrize("name", BROKEN_EXIF)
def test_broken_exif_leaves_the_picture_as_it_is(name: str) -> None:
    image = every_way(BROKEN_EXIF[name]())
    if name == "tiff":
        assert np.array_equal(np.asarray(image)[..., 0], np.arange(64).reshape(8, 8))
    else:
        assert image.size == ((36, 48) if name == "avif" else (48, 36))  # AVIF also turns outside its EXIF
        assert abs(np.asarray(image).mean() - np.asarray(in_mode("RGB")).mean()) < 3


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_is_made_upright_as_pillow_does(name: str, turn: int) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = turn
    in_mode("RGB").save(buffer, name, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(buffer))
    assert decode(buffer.getvalue(), MAX_PIXELS).tobytes() == expected.tobytes()
    assert sides(buffer.getvalue(), MAX_PIXELS) == expected.size


def test_sides_are_told_of_a_picture_whose_pixels_are_cut_off() -> None:
    content = saved("JPEG", "RGB", {})
    cut = content[: content.index(b"\xff\xda") + 20]
    with pytest.raises(DataError):
        decode(cut, MAX_PIXELS)
    assert sides(cut, MAX_PIXELS) == in_mode("RGB").size
    for read in (decode, sides):
        with pytest.raises(DataError, match=r"^48 x 36 pixels are more than max_pixels 1000$"):
            read(content, 1000)


def test_warnings_of_pillow_stop_nothing_in_any_thread() -> None:
    files = [BROKEN_EXIF["jpeg"](), BROKEN_EXIF["jpeg, directory cut off"]()] * 20
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda content: decode(content, MAX_PIXELS), files))) == 40


# formats


@pytest.mark.parametrize("name", FORMATS)
def test_the_allowed_formats_are_read_whatever_the_name(name: str, tmp_path: Path) -> None:
    content = saved(name, "L" if name == "GIF" else "RGB", {})
    (tmp_path / "x.jfif").write_bytes(content)
    assert open_image(tmp_path / "x.jfif").tobytes() == every_way(content).tobytes()


def ico_bomb() -> bytes:
    """16 x 16 by its directory, 30,000 x 30,000 by the PNG inside."""
    inside = png(30_000, 1)
    return b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0" + struct.pack("<II", len(inside), 22) + inside


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ico_bomb(), "ICO is not read: save it as one of JPEG, PNG, WEBP, BMP, GIF, TIFF"),
        (b"icns\0\0\0\x10" + bytes(30), "ICNS is not read"),
        (b"8BPS\0\1" + bytes(30), "PSD is not read"),
        (b"SIMPLE  =                    T" + bytes(50), "FITS is not read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS is a program for Ghostscript and is not read"),
        (b"\0\0\0\x20ftypheic" + bytes(30), "HEIF is not read"),
        (b"P6 2 2 255 " + bytes(12), "no image format is known for it"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(200), "no image format is known for it"),
    ],
)
def test_other_formats_are_refused_by_what_the_bytes_are(content: bytes, message: str) -> None:
    assert refusal(content).startswith(message)


@pytest.mark.parametrize("name", ["PNG", "WEBP", "GIF", "TIFF", "AVIF", "MPO"])
def test_of_many_frames_the_first_is_the_picture(name: str) -> None:
    mode, options = ("L" if name == "GIF" else "RGB"), dict[str, Any](save_all=True)
    several = decode(saved(name, mode, options), MAX_PIXELS)
    single = decode(saved("JPEG" if name == "MPO" else name, mode, {}), MAX_PIXELS)
    difference = np.abs(np.asarray(several, dtype=int) - np.asarray(single, dtype=int))
    assert several.size == single.size and difference.mean() < 8


# limits


def test_pillows_own_guard_stays_on() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None and 2 * Image.MAX_IMAGE_PIXELS == MAX_PIXELS
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    with pytest.raises(DataError, match=r"^400000000 pixels are more than Pillow's limit of 178956970$"):
        decode(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b""), 10**9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(70_000, 2), "70000 x 2 pixels: a side may have at most 65500"),
        (png(1, 60_000), "1 x 60000 pixels: the longer side may be at most 50 times the shorter"),
        (png(102, 2), "102 x 2 pixels: the longer side may be at most 50 times the shorter"),
        (many_scans(500, 7000), f"506 scans of 7000 x 7000 pixels are more than {MAX_SCANNED} pixels in all scans"),
        (saved("JPEG", "L", {})[:2] + b"\xff\xe0\0\2" * 1_001, "a JPEG may have at most 1000 segments"),
        (b"BM" + struct.pack("<IIIIIIHHIIIIII", 0, 0, 54, 40, 8, 8, 1, 8, 1, 0, 0, 0, 2, 0) + bytes(99), "a BMP compr"),
    ],
)
def test_a_limit_is_named_with_its_value_before_pixels_are_read(content: bytes, message: str) -> None:
    assert refusal(content).startswith(message)


def test_the_longest_shape_that_is_allowed_goes_every_way() -> None:
    image = every_way(png(100, 2))
    assert image.size == (100, 2) and USUAL(image).shape == (3, 3, 224, 224)


def test_photographs_of_many_scans_thumbnails_and_films_behind_them_are_read() -> None:
    content = saved("JPEG", "RGB", {"progressive": True})
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 60_000) + b"\xff\xda\0\x02" * 15_000
    film = b"\xff\xda\0\x02" * 20_000
    assert decode(content[:2] + thumbnail + content[2:] + film, MAX_PIXELS).size == (48, 36)
    assert decode(many_scans(60, 40), MAX_PIXELS).size == (40, 40)


@pytest.mark.parametrize(
    ("name", "side", "per_pixel"), [("WEBP", 7_600, 16), ("AVIF", 7_600, 16), ("JPEG", 9_500, 10), ("TIFF", 8_700, 12)]
)
def test_what_would_take_a_gigabyte_is_refused_by_its_header(name: str, side: int, per_pixel: int) -> None:
    """The size is written into the header of a small file; its pixels are never reached."""
    if name == "TIFF":
        content = tiff(np.zeros((4, 4), np.uint8), t256=[side], t257=[side])
    else:
        content = saved(name, "RGB", {"progressive": True} if name == "JPEG" else {})
        layout, sides = {"WEBP": ("<HH", (48, 36)), "JPEG": (">HH", (36, 48)), "AVIF": (">II", (48, 36))}[name]
        content = content.replace(struct.pack(layout, *sides), struct.pack(layout, side, side), 1)
    assert f"bytes to decode, {per_pixel} a pixel for this kind of {name}: more than 900000000" in refusal(content)


@pytest.mark.slow
@pytest.mark.parametrize("turned", [False, True])
def test_what_takes_a_gigabyte_only_to_become_rgb_is_refused_when_decoded(turned: bool) -> None:
    """A PNG may say behind its pixels that it is turned or transparent."""
    end = chunk(b"IEND", b"")
    name, body = (
        (b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + bytes(4))
        if turned
        else (
            b"tRNS",
            bytes(6),
        )
    )
    content = png(10_700, 10_700).removesuffix(end) + chunk(name, body) + end
    with pytest.raises(DataError, match="bytes to decode, 8 a pixel for this kind of PNG"):
        decode(content, MAX_PIXELS)


EIGHT = np.arange(64, dtype=np.uint8).reshape(8, 8)
TILES: dict[str, Any] = {"t273": None, "t278": None, "t279": None, "t324": [8], "t325": [64]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            tiff(EIGHT, deflate=True, t322=[28_000], t323=[28_000], **TILES),
            "tiles of 28000 x 28000 pixels; in a picture",
        ),
        (tiff(EIGHT, t322=[16], t323=[2**31], **TILES), "tiles of 16 x 2147483648 pixels; in a picture"),
        (tiff(EIGHT, t322=[0], t323=[16], **TILES), "tiles of 0 x 16 pixels"),
        pytest.param(
            tiff(EIGHT, t273=[8] * 65_537, t278=[1]), "65537 strips or tiles, more than 65536", marks=pytest.mark.slow
        ),
        (tiff(EIGHT, t256=[1000], t257=[1000], t322=[1], t323=[1], **TILES), "1000000 strips or tiles"),
        (tiff(EIGHT, t259=[34925]), "compression must be one of raw, packbits, tiff_lzw"),
        (saved("TIFF", "RGB", {"compression": "jpeg"}), "compression must be one of"),
    ],
)
def test_a_tiff_that_hides_its_cost_is_refused(content: bytes, message: str) -> None:
    assert refusal(content).startswith(f"this kind of TIFF is not read: {message}")


@pytest.mark.parametrize("deflate", [False, True])
def test_one_strip_may_name_more_rows_than_there_are(deflate: bool) -> None:
    image = every_way(tiff(EIGHT, deflate=deflate, t278=[2**32 - 1]))
    assert np.array_equal(np.asarray(image)[..., 0], EIGHT)


def test_metadata_that_unpacks_to_much_is_refused() -> None:
    bomb = b"icc\0\0" + zlib.compress(bytes(3_000_000))
    assert "too large for PngImagePlugin.MAX_TEXT_CHUNK" in refusal(with_chunk(saved("PNG", "RGB", {}), b"iCCP", bomb))


def test_a_comment_longer_than_jpeg_holds_is_left_behind() -> None:
    buffer = io.BytesIO()
    in_mode("P").save(buffer, "GIF", comment=bytes(b"x" * 70_000))
    assert Image.open(io.BytesIO(prepare(buffer.getvalue(), 64, MAX_PIXELS).content)).size == (48, 36)


# samples of other kinds


def scaled(samples: NDArray[np.generic], low: float, high: float) -> NDArray[np.uint8]:
    return np.rint((samples.astype(float) - low) / (high - low) * 255).astype(np.uint8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_a_grey_tiff_is_scaled_by_the_rule_or_refused(
    order: Literal["<", ">"], deflate: bool, dtype: str, white_is_zero: bool
) -> None:
    samples = np.random.default_rng(0).uniform(0, 120, (8, 8)).astype(dtype)
    content = tiff(samples, order, deflate, t262=[0 if white_is_zero else 1])
    try:
        image = np.asarray(every_way(content))[..., 0]
    except DataError as error:
        assert dtype != "u1" and str(error).startswith("this kind of TIFF is not read")
        assert white_is_zero or deflate or dtype not in ("u2", "i2", "i4", "f4")
        return
    low, high = float(samples.min()), float(samples.max())
    if dtype == "u1":
        expected = 255 - samples if white_is_zero else samples
    elif dtype == "u2":
        expected = samples >> 8
    else:
        expected = scaled(samples, low, high)
    assert np.array_equal(image, expected)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0, 0.25]], np.float32), [0, 128, 255, 64]),
        (np.array([[0.2, 0.2, 0.2, 0.2]], np.float32), [51, 51, 51, 51]),
        (np.array([[100.0, 300.0, 200.0, 100.0]], np.float32), [0, 255, 128, 0]),
        (np.array([[-1.0, 1.0, 0.5, 0.0]], np.float32), [0, 255, 191, 128]),
        (np.array([[257, 58853, 257, 58853]], np.int32), [0, 255, 0, 255]),
        (np.array([[0, 0x1234, 0xFFFF, 0x80]], np.uint16), [0, 0x12, 0xFF, 0]),
    ],
)
def test_white_is_the_largest_value_where_the_samples_have_one(
    samples: NDArray[np.generic], expected: list[int]
) -> None:
    assert np.asarray(decode(tiff(samples), MAX_PIXELS))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([[0.0, np.nan]], np.float32), "a sample is infinite or not a number"),
        (np.array([[0.0, np.inf]], np.float32), "a sample is infinite or not a number"),
        (np.array([[7.0, 7.0]], np.float32), "every sample is 7, which tells no brightness"),
        (np.array([[0, 2**31 + 5]], np.uint32), "unsigned samples of 32 bits above 2147483647"),
    ],
)
def test_samples_that_tell_no_brightness_are_refused(samples: NDArray[np.generic], message: str) -> None:
    assert message in refusal(tiff(samples))


def test_twelve_bits_are_refused_and_not_made_black() -> None:
    assert "samples of 12 bits" in refusal(tiff(np.zeros((2, 6), np.uint8), t256=[4], t258=[12]))


@pytest.mark.parametrize("samples", [np.zeros((2, 6), np.uint8), np.zeros((2, 6), np.int32)])
def test_planes_of_their_own_are_refused_and_not_read_negative_or_white(samples: NDArray[np.generic]) -> None:
    assert "planes of their own" in refusal(tiff(samples, t284=[2]))


def test_a_palette_of_8_bits_is_refused_and_not_read_as_black() -> None:
    shades = [number % 256 for number in range(768)]
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 6)
    assert "palette holds 8 bits" in refusal(tiff(pixels, t262=[3], t320=shades))
    whole = decode(tiff(pixels, t262=[3], t320=[257 * shade for shade in shades]), MAX_PIXELS)
    assert np.asarray(whole)[..., 0].tolist() == pixels.tolist()


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr", "1", "LA", "PA", "P", "RGBA"])
def test_other_modes_keep_their_brightness(mode: str) -> None:
    image = Image.new("RGB", (16, 16), (200, 100, 50)).convert("RGB" if mode == "LAB" else mode.replace("PA", "P"))
    expected = np.asarray(image.convert("RGB"), dtype=int)
    if mode == "PA":
        image = image.convert("PA")
    elif mode == "LAB":  # CIE 15: this colour's L*, a*, b* under D50, eight bits, a and b around 128
        image, expected = Image.new("LAB", (16, 16), (137, 37 + 128, 49 + 128)), np.array([200, 100, 50])
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if mode == "1" else "TIFF")
    assert np.abs(np.asarray(every_way(buffer.getvalue()), dtype=int) - expected).max() <= 8


def test_cmyk_is_read_with_adobes_marker_and_refused_without() -> None:
    content = saved("JPEG", "CMYK", {})
    expected = np.asarray(in_mode("CMYK").convert("RGB"), dtype=int)
    assert np.abs(np.asarray(every_way(content), dtype=int) - expected).mean() < 20
    place = content.index(b"\xff\xee")
    assert "CMYK without Adobe's marker" in refusal(content[:place] + content[place + 16 :])


def test_a_bmp_whose_fourth_byte_is_always_zero_is_opaque() -> None:
    head = struct.pack(
        "<IIIIIIHHIIIIIIIIII", 0, 0, 70, 56, 2, 2, 1, 32, 3, 16, 0, 0, 0, 0, 0xFF0000, 0xFF00, 0xFF, 0xFF << 24
    )
    assert set(np.asarray(every_way(b"BM" + head + bytes([10, 20, 30, 0]) * 4)).reshape(-1, 3)[0]) == {10, 20, 30}


# files


def test_only_regular_files_of_a_bounded_size_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(10 * 2**30)
    for path in (tmp_path, tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(DataError, match=rf"image {path}: it must be a regular file"):
            open_image(path)
    with pytest.raises(DataError, match=f"10737418240 bytes are more than an image may have, {MAX_FILE_BYTES}"):
        open_image(tmp_path / "sparse.png")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *[(name, None) for name in ("exif_broken.png", "exif_broken.webp", "exif_rawprofile.png", "exif_garbage.jpg")],
        *[(name, None) for name in ("int32.tif", "float65535.tif", "float01.tif", "a.jfif", "a.avif")],
        ("strip_70000x50.png", "70000 x 50 pixels: a side may have at most 65500"),
        ("thin_1x400000.png", "1 x 400000 pixels: a side may have at most 65500"),
        ("many_scans.jpg", "501 scans of 7000 x 7000 pixels"),
        ("ico_bomb.ico", "ICO is not read"),
        ("tiff_tile_bomb.tif", "this kind of TIFF is not read: tiles of 28000 x 28000 pixels"),
        ("icc_huge.png", "cannot be decoded: Decompressed data too large"),
        ("._x.jpg", "no image format is known for it"),
    ],
)
def test_the_inputs_that_once_broke_natix_are_read_or_refused(cases: Path, name: str, message: str | None) -> None:
    content = (cases / "images" / name).read_bytes()
    if message is not None:
        assert refusal(content).startswith(message)
        return
    image = every_way(content)
    assert 60 < np.asarray(image).mean() < 200 and np.asarray(image).std() > 20


# reduced scale


def photograph(real_data: Path, width: int, height: int) -> Image.Image:
    """A real street at another size."""
    path = sorted((real_data / "roadwork-real" / "images").iterdir())[600]
    return Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


JPEGS: dict[str, tuple[str, dict[str, Any]]] = {
    "colour": ("RGB", {"quality": 90}),
    "no chroma subsampling": ("RGB", {"quality": 95, "subsampling": 0}),
    "progressive": ("RGB", {"quality": 90, "progressive": True}),
    "grey": ("L", {"quality": 90}),
    "CMYK": ("CMYK", {"quality": 90}),
    "lying": ("RGB", {"quality": 90, "exif": True}),
    "two lenses": ("RGB", {"quality": 90, "save_all": True}),
}


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_decoded_at_a_reduced_scale_is_the_picture_within_a_grey_level(name: str, real_data: Path) -> None:
    mode, options = JPEGS[name]
    image, options = photograph(real_data, 2048, 1536).convert(mode), dict(options)
    if options.pop("exif", False):
        options["exif"] = Image.Exif()
        options["exif"][ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    image.save(buffer, "MPO" if options.get("save_all") else "JPEG", **options)
    content = buffer.getvalue()
    whole, half, eighth = (decode(content, MAX_PIXELS, side) for side in (None, 384, 96))
    assert half.size == tuple(side // 2 for side in whole.size)
    assert eighth.size == tuple(side // 8 for side in whole.size) and half.mode == eighth.mode == "RGB"
    for side, reduced, most in (
        (384, half, 0.5),
        (96, eighth, 0.9),
    ):  # the smaller, the more a pixel differs from the next
        small = at_most_shorter_side(reduced, side)
        before = whole.resize(small.size, Image.Resampling.BICUBIC)  # what version 1 of the transform did
        assert np.abs(np.asarray(small, float) - np.asarray(before, float)).mean() < most


def test_a_scale_that_does_not_divide_the_sides_is_not_taken() -> None:
    def sized(width: int, height: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (width, height)).save(buffer, "JPEG")
        return buffer.getvalue()

    for sides_, expected in (((84, 60), (21, 15)), ((82, 60), (41, 30)), ((81, 60), (81, 60))):
        assert decode(sized(*sides_), MAX_PIXELS, 3).size == expected


def test_a_side_that_is_more_than_half_of_the_picture_takes_all_its_pixels() -> None:
    content = saved("JPEG", "RGB", {})  # 48 x 36
    assert decode(content, MAX_PIXELS, 10).size == (48, 36) and decode(content, MAX_PIXELS, 9).size == (24, 18)
    assert decode(saved("PNG", "RGB", {}), MAX_PIXELS, 2).size == (48, 36)


def test_limits_are_those_of_the_file_whatever_the_scale() -> None:
    with pytest.raises(DataError, match="48 x 36 pixels are more than max_pixels 1000"):
        decode(saved("JPEG", "RGB", {}), 1000, 2)
    with pytest.raises(DataError, match="more than 2000000000 pixels in all scans"):
        decode(many_scans(60, 7000), MAX_PIXELS, 2)


def test_training_sees_of_a_stored_photograph_what_serving_sees_of_the_file(real_data: Path) -> None:
    transform = Transform(96, 128, True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    buffer = io.BytesIO()
    photograph(real_data, 1280, 720).save(buffer, "JPEG", quality=92)
    served = transform(decode(buffer.getvalue(), MAX_PIXELS, transform.resize_shorter_side))
    stored = prepare(buffer.getvalue(), transform.resize_shorter_side, MAX_PIXELS)
    trained = transform(Image.open(io.BytesIO(stored.content)))
    assert 255 * np.abs(served - trained).mean() < 1  # what JPEG at quality 95 leaves out


# damage


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused_below_a_gigabyte(count: int) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.data.mutations", "0", str(count)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    outcome = json.loads(result.stdout)
    assert outcome["escaped"] == outcome["differing"] == [] and outcome["peak_mb"] < 1000
    assert 0.3 * count < outcome["refused"] < 0.95 * count  # else the damage is too small or too large to show anything
