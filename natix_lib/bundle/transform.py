"""From an image to the numbers a model sees: the one transform of training, evaluation and serving.

Numpy and Pillow only, so the runtime needs no torch. The transform is named and versioned; a bundle carries its
parameters, and a runtime refuses a version that it does not know. An image first gets the size that ingest stores,
then the size the model takes, so an original photograph and its stored copy go through the same two steps.

A street image is wide and roadwork stands at its sides: a centre crop alone drops up to half of a 16:9 frame. With
`multiview` the model sees three squares along the longer side and their logits are averaged. Squashing the image to
a square was rejected because it changes the shape of cones and signs with the aspect ratio of the camera.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from natix_lib.errors import ContractError

NAME, VERSION = "natix-eval", 1


def upright_rgb(image: Image.Image) -> Image.Image:
    """`image` with its EXIF rotation applied, as RGB; transparency is laid on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow clips 16 bits to 8 instead of scaling them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def with_shorter_side(image: Image.Image, side: int) -> Image.Image:
    """`image` resized so that its shorter side is `side` pixels (bicubic, antialiased), aspect ratio kept."""
    width, height = image.size
    scale = side / min(width, height)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def at_most_shorter_side(image: Image.Image, side: int) -> Image.Image:
    """`image` reduced so that its shorter side is at most `side` pixels; never enlarged."""
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
        spare_x, spare_y = (extent - self.image_size for extent in image.size)
        shares = (0.0, 0.5, 1.0) if self.multiview else (0.5,)
        views = []
        for share in shares:
            left, top = int(spare_x * share), int(spare_y * share)
            views.append(image.crop((left, top, left + self.image_size, top + self.image_size)))
        return views

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
