"""From an image to the numbers a model sees: the one transform of training, evaluation and serving.

Without torch, so that the runtime needs none. The transform is named and versioned; a bundle carries its parameters,
and a runtime refuses a version that it does not know, older ones too. An image first gets the size that ingest stores,
then the size the model takes, so an original photograph and its stored copy go through the same two steps.

Version 2 averages whole boxes down to twice the wanted size or more and goes on bicubically, and `data.decode` may have
decoded a JPEG at a half, quarter or eighth, as far as twice the wanted size is left. At 256 pixels both are within .3
grey levels on average of version 1, which was bicubic from the whole picture (.6 at 96 pixels, where pixels differ
more from the next); with once the wanted size it is .8. The filter is
cykooz-resizer's: Pillow's own is the same one, but takes 2.5 of the 5 ms of a small photograph, where this takes .7. It
is given copies of pixels and never Pillow's memory, whose layout it would have to guess. OpenCV's, as fast and 150 MB,
was rejected: without an antialiased bicubic filter it is 1 to 1.7 grey levels away.

A street image is wide and roadwork stands at its sides: a centre crop alone drops up to half of a 16:9 frame. With
`multiview` the model sees three squares along the longer side and their logits are averaged. Squashing the image to
a square was rejected because it changes the shape of cones and signs with the aspect ratio of the camera.

Samples of more than 8 bits are scaled by one rule: where white has a value, it is that value. Unsigned 16 bits have
65,535, floating point within [0, 1] has 1. All others, signed, 32-bit and floating point beyond [0, 1], have none of
their own, so the lowest sample of the image is black and its highest white.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import ExifTags, Image

from natix_lib.errors import ContractError, DataError

NAME, VERSION = "natix-eval", 2
KEPT = 2  # times the wanted size that is left to the bicubic filter; measured: see the module's docstring
MAX_COPIED = 2**24  # pixels that are copied to be resized; more are left to Pillow, which needs no copies
MAX_ASPECT = 50  # at a shorter side of 2,048 pixels the scaled image takes .8 GB; panoramas of streets reach 10
BAND_PIXELS = 2**20
TURNING = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # where Pillow looks for an orientation
TURNS = {  # EXIF 2.32, tag 274, to what makes the image upright
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image, 1 to 8; 1 also where its EXIF cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(value) if value in TURNS else 1
    except Exception:  # broken EXIF raises whatever its bytes lead to
        return 1


def upright_rgb(image: Image.Image) -> Image.Image:
    """`image` with its EXIF rotation applied, as RGB; transparency is laid on white. An upright RGB image is returned
    itself. It is done band by band, so that no more than the image and its result are in memory.

    Raises:
        DataError: If its samples have 16 or 32 bits and `_grey` cannot scale them.
    """
    image.load()  # a TIFF turns itself then
    turn = TURNS[orientation(image)]
    if turn is not None:
        image = image.transpose(turn)
        image.info = {key: value for key, value in image.info.items() if key not in TURNING}
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    scale = _scale(image) if image.mode in ("I", "F") else None
    result = Image.new("RGB", image.size)
    result.info = {key: value for key, value in image.info.items() if key not in (*TURNING, "transparency")}
    for top, band in _bands(image):
        result.paste(_opaque(_grey(band, scale)), (0, top))
    return result


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Rows of an image from top to bottom, at most BAND_PIXELS or one row at a time, each with its first row."""
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _scale(image: Image.Image) -> tuple[float, float]:
    """The samples of 32 bits that are black and white.

    Raises:
        DataError: If a sample is not finite, or all are equal and outside [0, 1].
    """
    low, high = np.inf, -np.inf
    for _, band in _bands(image):
        samples = np.asarray(band)
        if not np.isfinite(samples).all():
            raise DataError("a sample is infinite or not a number")
        low, high = min(low, float(samples.min())), max(high, float(samples.max()))
    if image.mode == "F" and 0 <= low <= high <= 1:
        return 0.0, 1.0
    if low == high:
        raise DataError(f"every sample is {low:g}, which tells no brightness: save the image with 8 bits")
    return low, high


def _grey(image: Image.Image, scale: tuple[float, float] | None) -> Image.Image:
    """Samples of 16 or 32 bits as 8 bits; Pillow clips them instead. Images of other modes as they are."""
    if scale is not None:
        low, high = scale
        share = (np.asarray(image, dtype=np.float64) - low) / (high - low)
        return Image.fromarray(np.rint(255 * share).astype(np.uint8))
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow knows no way from it to RGBA
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def require_shape(width: int, height: int) -> None:
    """Refuse what no model can see: scaled until its shorter side fits, it would be more than a picture.

    Raises:
        DataError: If a side has no pixel, or the longer side is more than MAX_ASPECT times the shorter.
    """
    if min(width, height) < 1:
        raise DataError(f"{width} x {height} pixels: each side must have at least one")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(f"{width} x {height} pixels: the longer side may be at most {MAX_ASPECT} times the shorter")


def resized(image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """A part of an RGB image at another size, bicubic and antialiased.

    The kernel is Catmull and Rom's, a = -.5, as wide as the scale where it reduces: the one of Pillow's BICUBIC.

    Args:
        image: The image.
        size: Width and height of the result, pixels.
        box: The part: left, top, right and bottom, pixels.
    """
    return Image.frombytes("RGB", size, Parts(image).pixels(size, box).tobytes(), "raw", "RGBX")


class Parts:
    """An RGB image whose parts are wanted at other sizes; its pixels are copied once for all of them."""

    def __init__(self, image: Image.Image) -> None:
        """The image."""
        self.image = image
        self._copies: dict[int, ImageData] = {}  # by how many pixels a side are averaged first

    def pixels(self, size: tuple[int, int], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        """What `resized` gives as an array, uint8 (height, width, 4): red, green, blue and a byte without a meaning.

        With a fourth byte the filter takes four fifths of the time, and gives the same red, green and blue.
        """
        left, top, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
        factor = max(1, int(min(width / size[0], height / size[1]) / KEPT))
        crop = CropBox(left / factor, top / factor, width / factor, height / factor)
        if factor not in self._copies:
            image = self.image.reduce(factor) if factor > 1 else self.image
            if image.width * image.height > MAX_COPIED:
                place = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
                return pixels_of(image.resize(size, Image.Resampling.BICUBIC, box=place))
            copied = ImageData(image.width, image.height, PixelType.U8x4, image.tobytes("raw", "RGBX"))
            self._copies[factor] = copied
        result = ImageData(*size, PixelType.U8x4)
        options = ResizeOptions(ResizeAlg.convolution(FilterType.catmull_rom), crop_box=crop, use_alpha=False)
        Resizer().resize(self._copies[factor], result, options)
        return np.frombuffer(result.get_buffer(), dtype=np.uint8).reshape(size[1], size[0], 4)


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """An RGB image as an array, uint8 (height, width, 4), as `Parts.pixels` gives it."""
    return np.frombuffer(image.tobytes("raw", "RGBX"), dtype=np.uint8).reshape(image.height, image.width, 4)


def with_shorter_side(image: Image.Image, side: int) -> Image.Image:
    """An RGB image resized so that its shorter side is `side` pixels, aspect ratio kept.

    Raises:
        DataError: If `require_shape` refuses it.
    """
    size = size_with_shorter_side(image.size, side)
    return image if size == image.size else resized(image, size, (0, 0, *image.size))


def size_with_shorter_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height of an image of `size` once its shorter side is `side` pixels.

    Raises:
        DataError: If `require_shape` refuses it.
    """
    width, height = size
    require_shape(width, height)
    scale = side / min(width, height)
    return max(side, round(width * scale)), max(side, round(height * scale))


def at_most_shorter_side(image: Image.Image, side: int) -> Image.Image:
    """An RGB image reduced so that its shorter side is at most `side` pixels; never enlarged."""
    return with_shorter_side(image, side) if min(image.size) > side else image


@dataclass(frozen=True)
class Transform:
    """The evaluation transform.

    Attributes:
        image_size: Side of the square that the model takes, in pixels.
        resize_shorter_side: Shorter side that stored images are reduced to, in pixels.
        multiview: Three squares along the longer side instead of the centre one.
        image_mean: Mean of each channel, RGB in [0, 1].
        image_std: Standard deviation of each channel.
    """

    image_size: int
    resize_shorter_side: int
    multiview: bool
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]

    @property
    def view_count(self) -> int:
        """Views of one image."""
        return 3 if self.multiview else 1

    def squares(self, image: Image.Image) -> list[Image.Image]:
        """The square views of an image of any mode and size, first, centre and last when `multiview`."""
        image = at_most_shorter_side(upright_rgb(image), self.resize_shorter_side)
        image = with_shorter_side(image, self.image_size)
        side = self.image_size
        return [image.crop((left, top, left + side, top + side)) for left, top in self._corners(*image.size)]

    def pixels(self, image: Image.Image, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The pixels of `squares`, uint8 (view_count, image_size, image_size, 4), as `Parts.pixels` gives them.

        They are put `into` an array of that shape, or into a new one.
        """
        image = at_most_shorter_side(upright_rgb(image), self.resize_shorter_side)
        side, whole = self.image_size, image.size
        size = size_with_shorter_side(whole, side)
        every = pixels_of(image) if size == whole else Parts(image).pixels(size, (0, 0, *whole))
        if into is None:
            into = np.empty((self.view_count, side, side, 4), dtype=np.uint8)
        for view, (left, top) in zip(into, self._corners(*size), strict=True):
            view[:] = every[top : top + side, left : left + side]
        return into

    def _corners(self, width: int, height: int) -> list[tuple[int, int]]:
        """Left and top of each square in an image of this size, pixels."""
        shares = (0.0, 0.5, 1.0) if self.multiview else (0.5,)
        spare_x, spare_y = width - self.image_size, height - self.image_size
        return [(int(spare_x * share), int(spare_y * share)) for share in shares]

    def normalise(self, square: Image.Image) -> NDArray[np.float32]:
        """A square RGB image as float32 (3, image_size, image_size), normalised."""
        pixels = np.asarray(square, dtype=np.float32) / np.float32(255)
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.image_mean, self.image_std))
        scaled = (pixels - mean) / std
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """All views of an image, float32 (view_count, 3, image_size, image_size)."""
        return np.stack([self.normalise(square) for square in self.squares(image)])

    def document(self) -> dict[str, Any]:
        """The transform as JSON."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        return {"name": NAME, "version": VERSION, **values}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Transform":
        """Read `document()` back.

        Raises:
            ContractError: If it is another transform or version.
        """
        values = dict(document)
        name, version = values.pop("name", None), values.pop("version", None)
        if (name, version) != (NAME, VERSION):
            raise ContractError(f"transform must be {NAME} version {VERSION}, got {name!r} version {version!r}")
        try:
            mean, std = (tuple(float(v) for v in values.pop(key)) for key in ("image_mean", "image_std"))
            return cls(image_mean=mean, image_std=std, **values)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise ContractError(f"transform document is malformed: {error}") from error
