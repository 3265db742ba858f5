"""`natix draw` and `natix backbone`: what a first try needs without data and without the hub."""

from typing import Annotated

import typer

from natix_lib.cli.options import Output, Seed
from natix_lib.files import require_new

DrawnImages = Annotated[int, typer.Option("--images", metavar="N", min=50, help="Images to draw.")]
DrawnClasses = Annotated[int, typer.Option("--classes", metavar="N", help="2 or 13.")]


def draw(
    output: Output,
    images: DrawnImages = 1600,
    classes: DrawnClasses = 2,
    seed: Seed = 0,
) -> None:
    """Draw a synthetic street data set: drives of near-duplicate frames, with and without roadwork."""
    from natix_lib.demo.dataset import draw_dataset

    require_new(output)
    draw_dataset(output, images=images, classes=classes, seed=seed)
    typer.echo(f"{output / 'manifest.csv'}")


def backbone(
    output: Output,
    seed: Seed = 0,
    hidden_size: Annotated[int, typer.Option(metavar="N", min=64, help="Width, a multiple of 64.")] = 192,
    layers: Annotated[int, typer.Option(metavar="N", min=1, help="Layers.")] = 4,
    patch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Pixels.")] = 16,
    image_size: Annotated[int, typer.Option(metavar="N", min=1, help="Pixels, a multiple of the patch.")] = 112,
) -> None:
    """Write a small DINOv3 with random weights, for a try without the hub."""
    from natix_lib.demo.backbone import write_untrained_backbone

    write_untrained_backbone(output, seed, hidden_size, layers, patch_size, image_size)
    typer.echo(str(output))
