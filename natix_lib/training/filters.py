"""The filters of the backbone `patches`, learnt from the images of TRAIN before anything looks through them.

They are learnt here and not in fetch because fetch is given no images, so the graph shows that nothing but TRAIN was
looked at. Labels are not.
"""

import torch
from torch import nn

from natix_lib.backbones.patches import SAMPLED, Patches, averaged_down, drawn_patches
from natix_lib.config import Dataloader
from natix_lib.distributed.world import World
from natix_lib.files import sha256_bytes
from natix_lib.training.features import Progress
from natix_lib.training.views import Views, batches

IMAGES = 20_000  # at most; more do not change what patches look like


def learn_filters(
    backbone: nn.Module, train: Views, dataloader: Dataloader, progress: Progress, world: World
) -> str | None:
    """Give `backbone` its filters where it is `patches` without any; the first process learns for all.

    Args:
        backbone: Any backbone; changed in place, on its device.
        train: Views of the images of TRAIN, at least one image; its seed decides which patches, and where they start.
        dataloader: Images of a batch, and decoding processes.
        progress: Called with what is done, images done, and images in all.
        world: The processes that train together.

    Returns:
        A hash of the filters; None where nothing was learnt.
    """
    if not isinstance(backbone, Patches) or backbone.learnt:
        return None
    if world.first:
        generator = torch.Generator().manual_seed(train.seed)
        chosen = torch.randperm(len(train), generator=generator)[:IMAGES].tolist()
        an_image = -(-SAMPLED // (len(chosen) * train.count))
        parts, done = [], 0
        for batch in batches(train, dataloader, chosen):
            images = averaged_down(batch.flatten(0, 1))
            parts.append(drawn_patches(images, backbone.config.side, an_image, generator))
            done += len(batch)
            progress("patches of TRAIN", done, len(chosen))
        backbone.learn(torch.cat(parts), train.seed)
    world.copy_first(backbone)
    filters = torch.cat([backbone.filters.flatten(), backbone.offset]).cpu()
    return sha256_bytes(filters.numpy().tobytes())
