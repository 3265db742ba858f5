"""The one decoder of every picture that comes from outside: ingest, `natix predict` and `natix serve`.

Formats are allow-listed, by what the bytes are and not by the name: JPEG (with MPO, what two-lens cameras write), PNG,
WebP, BMP, GIF, TIFF, and AVIF where this Pillow has it. They are what cameras, browsers and labelling tools write. No
other plugin of Pillow is run: ICO and ICNS decode before anyone can look at their size, EPS is a program, and FITS,
PSD and forty more are no street photographs. Only the first picture of a file is decoded.

Who needs no more than some shorter side says so. A JPEG is then decoded at a half, quarter or eighth of its size, as
far as twice the wanted side is left: libjpeg leaves out frequencies that the transform would average away. That is part
of the transform, so ingest, predict and serve all say it. Other decoders were measured and left: they are no faster
than Pillow's at the same pixels (docs/performance.md), and each would need limits of its own.

Limits are checked before pixels, against the size that the header tells: sides, shape, pixels, what a format takes of
memory for a pixel, scans of a JPEG, blocks of a TIFF. Pillow's own guard, `Image.MAX_IMAGE_PIXELS`, stays on beneath
them. A picture whose header asks for more than a street photograph needs is refused with the limit and its value; no
file may take a gigabyte.

Broken EXIF says nothing about the pixels, so it is ignored. Files that Pillow reads wrongly without saying so are
refused; they are the rows of `_tiff_reason`.
"""

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError, features

from natix_lib.errors import DataError
from natix_lib.transform import KEPT, orientation, require_shape, upright_rgb

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", *(("AVIF",) if features.check("avif") else ()))
SIGNATURES = {  # what other files begin with, to call them by their name
    rb"%!PS|\xc5\xd0\xd3\xc6": "EPS is a program for Ghostscript and",
    rb"\x00\x00[\x01\x02]\x00": "ICO",
    rb"icns": "ICNS",
    rb"8BPS": "PSD",
    rb"SIMPLE  =": "FITS",
    rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51": "JPEG 2000",
    rb"....ftyp(hei|hev|mif|msf)": "HEIF",
    rb"....ftyp(avif|avis)": "this kind of AVIF",
    rb"....ftyp": "video",
    rb"%PDF": "PDF",
    rb"\s*<(\?xml|svg)": "SVG",
    rb"II[*+]\x00|MM\x00[*+]": "this kind of TIFF",
}

MAX_PIXELS = 178_956_970  # Pillow's limit, 2 x MAX_IMAGE_PIXELS; of `natix predict`, and the default of data.max_pixels
MAX_FILE_BYTES = 2**30  # an RGB image of MAX_PIXELS takes half of it uncompressed, one of 16 bits all
MAX_SIDE = 65_500  # pixels; libjpeg's JPEG_MAX_DIMENSION, and what is stored is JPEG
MAX_BYTES = 900_000_000  # memory of one picture until it is RGB; under a gigabyte with all that is small beside it
MAX_SCANNED = 2_000_000_000  # scans x pixels of a JPEG: an empty scan costs 1 ns a pixel, and photographs have about 10
MAX_SEGMENTS = 1_000  # of a JPEG: photographs have below 100, and Pillow joins EXIF segments in quadratic time
MAX_BLOCKS = 65_536  # strips or tiles of a TIFF: one of 10 us each a row of the tallest picture
MAX_TILE_SIDE = 4_096  # pixels that a tile may have where its picture is smaller; writers take 128 to 1,024
# Bytes a pixel while a format is decoded, measured with Pillow 13; 4 is the image itself. WebP and AVIF keep canvases
# until the image is gone; a TIFF may turn itself, and a strip of four samples of 16 bits may be the whole picture.
PER_PIXEL = {"WEBP": 16, "AVIF": 16, "TIFF": 12}
PER_COPY = 4  # more, each, to turn an image and to lay another mode on RGB
# Of the others, JPEG needs 10 to 100 scans a strip, LZMA and Zstandard take the memory that the file asks for, and fax
# and log compression are no photographs.
TIFF_COMPRESSIONS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate")
TIFF_SUBDIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop, ExifTags.Base.SubIFDs)
BMP_RUNS = (1, 2)  # BI_RLE8 and BI_RLE4, which Pillow decodes in Python, a byte at a time
SCALES = (8, 4, 2)  # of libjpeg's that Pillow offers
JPEG_START = b"\xff\xd8\xff"
JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # without stuffed zeros, restarts and padding
JPEG_END, JPEG_SCAN = 0xD9, 0xDA
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height

T = TypeVar("T")


def open_image(path: str | Path, shorter_side: int | None = None) -> Image.Image:
    """A decoded image file; `shorter_side` as `decode` takes it.

    Raises:
        DataError: With the path and the reason of `decode_file`.
    """
    try:
        return decode_file(path, shorter_side)
    except DataError as error:
        raise DataError(f"image {path}: {error}") from error


def decode_file(path: str | Path, shorter_side: int | None = None) -> Image.Image:
    """Decode the first picture of a file as `decode` does, at most MAX_PIXELS.

    Raises:
        DataError: With the reason alone, of `file_bytes` or of `decode`.
    """
    return decode(file_bytes(path), MAX_PIXELS, shorter_side)


def file_bytes(path: str | Path) -> bytes:
    """The bytes of a file that may be an image.

    Raises:
        DataError: With the reason alone: it is missing, no regular file, or larger than MAX_FILE_BYTES.
    """
    try:
        status = Path(path).stat()
        if not S_ISREG(status.st_mode):
            raise DataError("it must be a regular file, not a folder, pipe or device")
        if status.st_size > MAX_FILE_BYTES:
            raise DataError(f"{status.st_size} bytes are more than an image may have, {MAX_FILE_BYTES}")
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise DataError("no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise DataError(getattr(error, "strerror", None) or str(error)) from error


def decode(content: bytes, max_pixels: int, shorter_side: int | None = None) -> Image.Image:
    """Decode the first picture of a file to its end, its cost checked first.

    Args:
        content: The file's bytes.
        max_pixels: Refuse pictures with more; beyond MAX_PIXELS Pillow's own guard refuses.
        shorter_side: Pixels to which the shorter side will be reduced: a JPEG may come at an eighth, quarter or half of
            its size, where that divides both sides and leaves the shorter one at least KEPT times that. None decodes
            all pixels.

    Returns:
        An upright RGB image. Its `format` is "JPEG" when the file is a JPEG whose pixels are just these, or these
        reduced; None when another mode or an orientation was left behind.

    Raises:
        DataError: With the reason alone.
    """

    def wholly(image: ImageFile.ImageFile) -> Image.Image:
        if shorter_side is not None:
            _reduce(image, KEPT * shorter_side)
        image.load()
        _check_pixels(image)
        return upright_rgb(image)

    return _checked(content, max_pixels, wholly)


def sides(content: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height of the first picture of a file by its header, as `decode` gives it; pixels stay unread.

    Args:
        content: The file's bytes.
        max_pixels: Refuse pictures with more.

    Returns:
        Width and height of the upright picture, pixels.

    Raises:
        DataError: With the reason alone, where `decode` would refuse it before it reads pixels.
    """

    def upright(image: ImageFile.ImageFile) -> tuple[int, int]:
        width, height = image.size
        is_turned = orientation(image) in TURNED and image.format != "TIFF"  # whose sides Pillow has swapped already
        return (height, width) if is_turned else (width, height)

    return _checked(content, max_pixels, upright)


def _checked(content: bytes, max_pixels: int, read: Callable[[ImageFile.ImageFile], T]) -> T:
    """What `read` makes of an opened picture whose cost was checked; every failure is a DataError with its reason."""
    if not content:
        raise DataError("the file is empty")
    # What Pillow warns of is decided here. `catch_warnings` would do so for this call, but not among threads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        scans = _count_scans(content) if content.startswith(JPEG_START) else 0
        image = _open(content)
        _check_cost(image, scans, max_pixels)
        return read(image)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        name = next((name for start, name in SIGNATURES.items() if re.match(start, content, re.DOTALL)), None)
        known = f"{name} is not read: save it as one of {', '.join(FORMATS)}"
        raise DataError(known if name else "no image format is known for it") from error
    except Image.DecompressionBombError as error:  # raised by Image.open, which does not tell the sides
        match = re.search(r"\d+", str(error))
        pixels = int(match[0]) if match else MAX_PIXELS + 1
        limit = f"max_pixels {max_pixels}" if pixels > max_pixels else f"Pillow's limit of {MAX_PIXELS}"
        raise DataError(f"{pixels} pixels are more than {limit}") from error
    except Exception as error:  # decoders raise whatever broken bytes lead them to
        raise DataError(f"cannot be decoded: {error or type(error).__name__}") from error


def _open(content: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except (UnidentifiedImageError, ValueError):
        if content[4:8] != b"ftyp" or b"Exif" not in content:
            raise
        # libavif reads no picture whose EXIF is broken, so the item of that type gets one that nobody reads.
        return Image.open(io.BytesIO(content.replace(b"Exif", b"none")), formats=FORMATS)


def _check_cost(image: ImageFile.ImageFile, scans: int, max_pixels: int) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE:
        raise DataError(f"{width} x {height} pixels: a side may have at most {MAX_SIDE}")
    if width * height > max_pixels:
        raise DataError(f"{width} x {height} pixels are more than max_pixels {max_pixels}")
    require_shape(width, height)
    per_pixel = PER_PIXEL.get(image.format or "", 4)
    if image.format in ("JPEG", "MPO"):
        if scans * width * height > MAX_SCANNED:
            raise DataError(
                f"{scans} scans of {width} x {height} pixels are more than {MAX_SCANNED} pixels in all scans"
            )
        if scans > 1:  # all coefficients are kept until the last scan, two bytes each
            per_pixel += 2 * len(image.getbands())
        if image.mode == "CMYK" and "adobe" not in image.info:
            raise DataError("CMYK without Adobe's marker does not tell whether 0 is no ink or full ink: save it as RGB")
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        reason = _tiff_reason(image)
        if reason:
            raise DataError(f"this kind of TIFF is not read: {reason}")
        exif = image.getexif()
        for (
            tag
        ) in TIFF_SUBDIRECTORIES:  # else Pillow reads them at the end of decoding, and fails where they are broken
            exif.pop(tag, None)
    elif image.format == "BMP" and image.info["compression"] in BMP_RUNS:
        raise DataError("a BMP compressed by runs is not read: save it as PNG")
    _require_memory(image, per_pixel)


def _reduce(image: ImageFile.ImageFile, least: int) -> None:
    """Have a JPEG decoded at the smallest scale that keeps its shorter side at `least` pixels or more.

    Only at one that divides both sides: else the last column is a part of a pixel, the picture is stretched to it, and
    small ones are 1 to 3 grey levels away.
    """
    width, height = image.size
    for scale in SCALES:
        if min(width, height) >= scale * least and not width % scale and not height % scale:
            image.draft(None, (width // scale, height // scale))  # does nothing to other formats
            return


def _require_memory(image: Image.Image, per_pixel: int) -> None:
    width, height = image.size
    if per_pixel * width * height > MAX_BYTES:
        raise DataError(
            f"{width} x {height} pixels take {per_pixel * width * height} bytes to decode, {per_pixel} a pixel for "
            f"this kind of {image.format}: more than {MAX_BYTES}"
        )


def _count_scans(content: bytes) -> int:
    """Scans of a JPEG up to its end, with markers walked as libjpeg does; thumbnails and what follows do not count.

    Raises:
        DataError: If it has more than MAX_SEGMENTS segments.
    """
    scans, place = 0, 2
    for _ in range(MAX_SEGMENTS):
        match = JPEG_MARKER.search(content, place)
        if match is None or content[match.start() + 1] == JPEG_END:
            return scans
        scans += content[match.start() + 1] == JPEG_SCAN
        place = match.end() + int.from_bytes(content[match.end() : match.end() + 2], "big")
    raise DataError(f"a JPEG may have at most {MAX_SEGMENTS} segments, this has more")


def _tiff_reason(image: TiffImagePlugin.TiffImageFile) -> str | None:
    """Why a TIFF is refused: what Pillow reads wrongly, or what takes more than the declared picture tells."""
    tags, compression = image.tag_v2, image.info["compression"]
    if compression not in TIFF_COMPRESSIONS:
        return f"compression must be one of {', '.join(TIFF_COMPRESSIONS)}, got {compression}"
    width, height = image.size
    tile_width, tile_height = tags.get(TiffImagePlugin.TILEWIDTH), tags.get(TiffImagePlugin.TILELENGTH)
    offsets = tags.get(TiffImagePlugin.STRIPOFFSETS) or tags.get(TiffImagePlugin.TILEOFFSETS) or ()
    blocks = len(offsets)
    if tile_width is not None or tile_height is not None:
        if not (isinstance(tile_width, int) and isinstance(tile_height, int) and min(tile_width, tile_height) > 0):
            return f"tiles of {tile_width} x {tile_height} pixels"
        if max(tile_width, tile_height) > max(width, height, MAX_TILE_SIDE):
            return (
                f"tiles of {tile_width} x {tile_height} pixels; in a picture of {width} x {height} a tile may have "
                f"{max(width, height, MAX_TILE_SIDE)} a side"
            )
        blocks = max(blocks, -(-width // tile_width) * -(-height // tile_height))
    if blocks > MAX_BLOCKS:
        return f"{blocks} strips or tiles, more than {MAX_BLOCKS}"
    if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) != 1:
        return "its colours lie in planes of their own"  # read negative, garbled or white by kind of sample
    palette = tags.get(TiffImagePlugin.COLORMAP)
    if palette and max(palette) < 256:
        return "its palette holds 8 bits in the place of 16"  # read as black
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    signed = 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    wide = image.mode in ("I", "F") or image.mode.startswith("I;16")
    if bits == (12,) or (signed and not wide):
        return f"{'signed ' if signed else ''}samples of {bits[0]} bits"
    if wide and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) == 0:
        return f"white is zero in samples of {bits[0]} bits"
    if image.mode in ("I", "F") and tags.prefix == TiffImagePlugin.MM and compression != "raw":
        return f"compressed big-endian samples of {bits[0]} bits"
    return None


def _check_pixels(image: ImageFile.ImageFile) -> None:
    """Mend or refuse what shows only when a file was read to its end."""
    turned, other = orientation(image) != 1, image.mode != "RGB" or "transparency" in image.info
    kept = PER_PIXEL.get(image.format or "", 4) if image.format != "TIFF" else 4
    _require_memory(image, kept + PER_COPY * (turned + other))
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image.putalpha(255)  # as browsers do: most writers of 32 bits leave the fourth byte at zero
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode == "I":
        unsigned = image.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, (1,)) == (1,)
        low = image.getextrema()[0]
        if unsigned and isinstance(low, int | float) and low < 0:
            raise DataError("this kind of TIFF is not read: unsigned samples of 32 bits above 2147483647")
