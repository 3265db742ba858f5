"""How a run sees images: which rows a process takes, in which order, and what comes back for all of them.

Orders and views depend on the seed and the epoch alone, so that a run is the same whatever the number of processes,
but for the rounding of sums.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from natix_lib.config import Dataloader
from natix_lib.distributed.world import World
from natix_lib.seeds import numbered_seed
from natix_lib.training.bank import FeatureBank
from natix_lib.training.classifier import Classifier
from natix_lib.training.features import Progress, extract, silent
from natix_lib.training.mixing import Mixup
from natix_lib.training.order import balanced, shuffled
from natix_lib.training.profiles import STREET, Profile
from natix_lib.training.views import Epochs, Images, Views
from natix_lib.transform import Transform


@dataclass(frozen=True)
class Passes:
    """What all passes of a run over images share.

    Attributes:
        transform: Turns an image into what the classifier takes.
        seed: Decides orders and augmented views.
        dataloader: Images of a batch, over all processes, and decoding processes.
        world: The processes that divide each pass.
        balanced: Whether an epoch draws all classes equally often.
        mixup: How the pixels of a batch are blended; None blends none.
        profile: What augmentation does.
    """

    transform: Transform
    seed: int
    dataloader: Dataloader
    world: World
    balanced: bool = False
    mixup: Mixup | None = None
    profile: Profile = STREET
    _epochs: dict[int, Epochs] = field(default_factory=dict, init=False, repr=False, compare=False)  # by id of images

    def steps_an_epoch(self, images: int) -> int:
        """Batches of an epoch of `images` images."""
        return -(-images // self.dataloader.batch_size)

    @torch.no_grad()
    def logits(
        self,
        classifier: Classifier,
        images: Images,
        autocast: torch.dtype | None = None,
        progress: Progress = silent,
        what: str = "logits",
    ) -> Tensor:
        """Logits of the evaluation views.

        Args:
            classifier: A classifier in eval mode, on the device to use.
            images: The images, in the order of the rows that come back.
            autocast: Precision of the backbone on a GPU; None computes in float32.
            progress: Called with `what`, images done, and images in all.
            what: Name of the work in the progress.

        Returns:
            Logits averaged over views, (n, C), on the classifier's device, on every process.
        """
        views = Views(images, self.transform, self.seed)
        rows = self.world.share(len(images))
        features = extract(classifier, views, self.dataloader, autocast, progress, what, rows)
        logits: Tensor = classifier.head(features.to(next(classifier.parameters()).device)).mean(dim=1)
        return self.world.gathered(logits, len(images))

    def feature_batches(
        self, bank: FeatureBank, labels: Tensor, epoch: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One random view of each image, shuffled.

        Args:
            bank: Features of K views of each image.
            labels: Class number of each image, (n,), on the bank's device.
            epoch: Number of the epoch, from 0.
            start: Number of the first batch to give, from 0.

        Yields:
            Features (b, F) and labels (b,) of a batch; every process gets all of it.
        """
        order = self._order(labels, epoch)
        generator = torch.Generator().manual_seed(numbered_seed(self.seed, epoch + 500_009))
        view = torch.randint(bank.values.shape[1], (len(order),), generator=generator)
        for rows, features in bank.batches(order, view, self.dataloader.batch_size, start):
            yield features, labels[rows]

    def pixel_batches(
        self, images: Images, labels: Tensor, epoch: int, start: int = 0, progress: Progress = silent
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """A fresh augmented view of each image, shuffled.

        Args:
            images: The images to train on.
            labels: Class number of each image, (n,), on the device to use.
            epoch: Number of the epoch, from 0.
            start: Number of the first batch to give, from 0; images of those before are not read.
            progress: Called with the epoch, images done over all processes, and images in all.

        Yields:
            This process's share of a batch, which may be empty: pixels (b, 3, S, S) and labels (b,), or, blended,
            class probabilities (b, C).
        """
        batches = torch.split(self._order(labels, epoch), self.dataloader.batch_size)[start:]
        shares = [rows[list(self.world.share(len(rows)))] for rows in batches]
        done = start * self.dataloader.batch_size
        if id(images) not in self._epochs:  # images are kept there, so no others can have their id
            views = Views(images, self.transform, self.seed, (0,), self.profile)
            self._epochs[id(images)] = Epochs(views, self.dataloader, labels.device)
        pixels_of = self._epochs[id(images)].batches([rows.tolist() for rows in shares], epoch + 1)
        for step, (batch, rows, pixels) in enumerate(zip(batches, shares, pixels_of, strict=True), start):
            done += len(batch)
            progress(f"epoch {epoch}", done, len(images))
            here = pixels[:, 0]
            if self.mixup:
                yield self.mixup.blended(here, labels[batch.to(labels.device)], epoch, step, self.world)
            else:
                yield here, labels[rows.to(labels.device)]

    def _order(self, labels: Tensor, epoch: int) -> Tensor:
        order = balanced if self.balanced else shuffled
        return order(labels, self.seed, epoch)
