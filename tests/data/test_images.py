import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from natix_lib.data import images
from natix_lib.data.decode import MAX_PIXELS, open_image
from natix_lib.data.images import Prepared, prepare, prepare_all
from natix_lib.errors import DataError


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def stored(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def huge_png() -> bytes:
    """A PNG of 50,000 x 50,000 pixels, by its header alone."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_jpeg_that_needs_no_change_keeps_its_bytes(picture: Callable[..., Image.Image]) -> None:
    content = encoded(picture(), "JPEG", quality=70)
    assert prepare(content, 64, MAX_PIXELS).content == content


def test_a_large_image_is_reduced_and_a_small_one_never_enlarged(picture: Callable[..., Image.Image]) -> None:
    assert stored(prepare(encoded(picture(300, 200)), 64, MAX_PIXELS).content).size == (96, 64)
    assert stored(prepare(encoded(picture(30, 20)), 64, MAX_PIXELS).content).size == (30, 20)


def test_exif_rotation_is_applied(picture: Callable[..., Image.Image]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = stored(prepare(encoded(picture(80, 40), "JPEG", exif=exif), 64, MAX_PIXELS).content)
    assert image.size == (40, 80) and image.getexif().get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1", "LA"])
def test_every_mode_becomes_rgb(picture: Callable[..., Image.Image], mode: str) -> None:
    image = Image.new("I;16", (48, 32)) if mode == "I;16" else picture().convert(mode)
    file_format = "TIFF" if mode == "CMYK" else "PNG"
    assert stored(prepare(encoded(image, file_format), 64, MAX_PIXELS).content).mode == "RGB"


def test_equal_pixels_have_equal_hashes_whatever_the_file(picture: Callable[..., Image.Image]) -> None:
    first, second = encoded(picture(), "PNG"), encoded(picture(), "PNG", compress_level=1)
    assert first != second
    assert prepare(first, 64, MAX_PIXELS).sha256 == prepare(second, 64, MAX_PIXELS).sha256
    assert prepare(first, 64, MAX_PIXELS).sha256 != prepare(encoded(picture(seed=1)), 64, MAX_PIXELS).sha256


def test_images_are_prepared_in_order_and_read_no_further_ahead_than_their_bytes_allow(
    picture: Callable[..., Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [encoded(picture(40 + number, 32)) for number in range(40)]
    monkeypatch.setattr(images, "cpu_threads", lambda: 2)
    monkeypatch.setattr(images, "AHEAD_BYTES", 3 * len(files[0]))
    read: list[int] = []

    def contents() -> Iterator[bytes | DataError]:
        for number, content in enumerate(files):
            read.append(number)
            yield DataError("gone") if number == 7 else content

    results = []
    for result in prepare_all(contents(), 64, MAX_PIXELS):
        results.append(result)
        assert len(read) - len(results) <= 4
    assert str(results[7]) == "gone"
    assert [each.width for each in results if isinstance(each, Prepared)] == [40 + n for n in range(40) if n != 7]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"not an image at all", "no image format is known"),
        (huge_png(), "2500000000 pixels are more than max_pixels 178956970"),
    ],
)
def test_what_is_no_image_has_a_reason(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(content, 64, MAX_PIXELS)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_a_truncated_image_has_a_reason(picture: Callable[..., Image.Image], file_format: str) -> None:
    content = encoded(picture(200, 200), file_format)
    with pytest.raises(DataError, match="cannot be decoded"):
        prepare(content[: len(content) // 2], 64, MAX_PIXELS)


def test_opening_a_file_names_it(tmp_path: Path, picture: Callable[..., Image.Image]) -> None:
    picture().save(tmp_path / "ok.png")
    assert open_image(tmp_path / "ok.png").size == (48, 32)
    with pytest.raises(DataError, match=r"image .*gone.png: no such file"):
        open_image(tmp_path / "gone.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"image .*empty.png: the file is empty"):
        open_image(tmp_path / "empty.png")


def test_a_program_for_ghostscript_is_refused_before_it_runs() -> None:
    with pytest.raises(DataError, match="EPS is a program for Ghostscript"):
        prepare(encoded(Image.new("RGB", (8, 8)), "EPS"), 8, MAX_PIXELS)
