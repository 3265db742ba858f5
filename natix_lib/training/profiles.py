"""What augmentation does to the images of TRAIN: named profiles, and the numbers that one draws for a view.

A profile has a name, which the config says, and a version, which changes with whatever it does; kept features and
checkpoints hold both. What is drawn and what is done are apart: here a loader's process cuts a view out of the picture
and draws its numbers, with the one generator of that view; `augment.py` does what they say, on the device, for a batch.

All profiles do what holds for a street: no vertical flip and no rotation. `street` crops, mirrors and changes the
light. `street-strong` crops more, changes the light more, and adds what pictures go through on their way: blur, JPEG at
a low quality, black bars around the whole picture. `none` takes one of the evaluation squares as it is. The ranges are
choices; those of blur are of DINOv2 (arXiv 2304.07193), the ratios of crops those of Inception (arXiv 1409.4842).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natix_lib.training.colour import SIGMA_OF_BLUR
from natix_lib.transform import Parts, Transform, upright_rgb

FLIP, BRIGHTNESS, CONTRAST, SATURATION, SIGMA, QUALITY = range(6)  # places of the numbers of a view
UNCHANGED = (0.0, 1.0, 1.0, 1.0, 0.0, 0.0)
Range = tuple[float, float]


@dataclass(frozen=True)
class Profile:
    """What is drawn for an augmented view.

    Attributes:
        name: What the config calls it.
        version: Another one where the same numbers would give other pixels, or other numbers were drawn.
        area: Share of the image's area that a crop has; None takes an evaluation square, and nothing else is done.
        ratio: Width / height of a crop.
        jitter: Brightness, contrast and saturation are multiplied by 1 - jitter to 1 + jitter.
        letterbox: Share of views that show the whole image between black bars instead of a crop.
        blur: Share of views that are blurred.
        sigma: Standard deviation of the blur in pixels at 224.
        jpeg: Share of views that are compressed once more.
        quality: Quality of that compression, 1 to 100.
    """

    name: str
    version: int
    area: Range | None
    ratio: Range = (3 / 4, 4 / 3)
    jitter: float = 0.0
    letterbox: float = 0.0
    blur: float = 0.0
    sigma: Range = SIGMA_OF_BLUR
    jpeg: float = 0.0
    quality: Range = (30.0, 90.0)

    def document(self) -> dict[str, Any]:
        """What features and weights depend on (JSON)."""
        return {"name": self.name, "version": self.version}


NONE = Profile("none", 1, None)
STREET = Profile("street", 1, (0.4, 1.0), jitter=0.3)  # a smaller crop loses the cone that gives an image its label
STRONG = Profile("street-strong", 1, (0.25, 1.0), jitter=0.4, letterbox=0.1, blur=0.2, jpeg=0.3)
PROFILES = {profile.name: profile for profile in (NONE, STREET, STRONG)}


class Cuts:
    """Views that are cut out of one picture."""

    def __init__(self, image: Image.Image, transform: Transform) -> None:
        """`image` may have any mode and size."""
        self.transform = transform
        self.image = upright_rgb(image)
        self.parts = Parts(self.image)
        self.side = transform.image_size

    def cut(self, profile: Profile, generator: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """A view before what is done on the device.

        Returns:
            Its pixels, uint8 (image_size, image_size, 4), and its numbers, float32 (6,): whether it is mirrored, the
            factors of brightness, contrast and saturation, the deviation of the blur in pixels at 224, 0 for none, and
            the quality of the compression, 0 for none.
        """
        if profile.area is None:
            squares = self.transform.pixels(self.image)
            return squares[generator.integers(len(squares))], np.array(UNCHANGED, dtype=np.float32)
        if _chosen(profile.letterbox, generator):
            pixels = self._whole()
        else:
            pixels = self.parts.pixels((self.side, self.side), _box(self.image.size, profile, profile.area, generator))
        numbers = np.array(UNCHANGED, dtype=np.float32)
        numbers[FLIP] = generator.random() < 0.5
        for place in (BRIGHTNESS, CONTRAST, SATURATION):
            numbers[place] = generator.uniform(1 - profile.jitter, 1 + profile.jitter)
        if _chosen(profile.blur, generator):
            numbers[SIGMA] = generator.uniform(*profile.sigma)
        if _chosen(profile.jpeg, generator):
            numbers[QUALITY] = round(generator.uniform(*profile.quality))
        return pixels, numbers

    def _whole(self) -> NDArray[np.uint8]:
        """The whole picture in the middle of a black square."""
        width, height = (max(1, round(each * self.side / max(self.image.size))) for each in self.image.size)
        square = np.zeros((self.side, self.side, 4), dtype=np.uint8)
        left, top = (self.side - width) // 2, (self.side - height) // 2
        square[top : top + height, left : left + width] = self.parts.pixels((width, height), (0, 0, *self.image.size))
        return square


def _chosen(share: float, generator: np.random.Generator) -> bool:
    """Whether a view is among the share of them; draws nothing where none is."""
    return share > 0 and generator.random() < share


def _box(
    size: tuple[int, int], profile: Profile, share: Range, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random crop of a picture of this width and height: left, top, right and bottom, pixels."""
    width, height = size
    area = width * height * generator.uniform(*share)
    ratio = float(np.exp(generator.uniform(*np.log(profile.ratio))))
    crop_width = min(width, max(1, round(float(np.sqrt(area * ratio)))))
    crop_height = min(height, max(1, round(float(np.sqrt(area / ratio)))))
    left = int(generator.integers(0, width - crop_width + 1))
    top = int(generator.integers(0, height - crop_height + 1))
    return left, top, left + crop_width, top + crop_height
