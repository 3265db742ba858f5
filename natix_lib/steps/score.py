"""score: sets of new images -> their logits and labels, through the bundle; onnxruntime, no torch."""

from collections.abc import Mapping
from typing import Any

from natix_lib import config
from natix_lib.bundle.runtime import Bundle
from natix_lib.config.step_settings import ScoreSettings
from natix_lib.contracts import SETS, VAL_CALIB, VAL_SELECT, require_same
from natix_lib.data.sets import open_set, require_one_division
from natix_lib.decisions.slices import Tags
from natix_lib.progress import Lines
from natix_lib.steps.pairs import write_pair


def run(
    settings: Mapping[str, Any],
    *,
    val_select_set: str,
    val_calib_set: str,
    old_bundle: str,
    val_select_logits: str,
    val_select_labels: str,
    val_calib_logits: str,
    val_calib_labels: str,
) -> dict[str, float]:
    """Score VAL_SELECT and VAL_CALIB.

    Args:
        settings: Empty: score reads nothing of the config.
        val_select_set: Folder with the set of VAL_SELECT.
        val_calib_set: Folder with the set of VAL_CALIB.
        old_bundle: Folder of the bundle.
        val_select_logits: Path to write the logits of VAL_SELECT to.
        val_select_labels: Path to write labels and groups of the same images to.
        val_calib_logits: Path to write the logits of VAL_CALIB to.
        val_calib_labels: Path to write labels and groups of the same images to.

    Returns:
        The images of each role.

    Raises:
        NatixError: If the bundle is altered, or the sets are not of one division and of its classes.
    """
    config.parse(ScoreSettings, settings)
    bundle = Bundle.load(old_bundle)
    folders = {VAL_SELECT: val_select_set, VAL_CALIB: val_calib_set}
    sets = {SETS[role]: open_set(folder, role) for role, folder in folders.items()}
    require_one_division(sets)
    paths = {VAL_SELECT: (val_select_logits, val_select_labels), VAL_CALIB: (val_calib_logits, val_calib_labels)}
    columns = {name: images.all_tags() for name, images in sets.items()}
    lines = Lines()
    for name, images in sets.items():
        for key in ("class_names", "positive_classes"):
            require_same(key, bundle.manifest[key], "the bundle", getattr(images, key), name)

        def show(done: int, what: str = f"{images.role} images", total: int = len(images)) -> None:
            lines.progress(what, done, total)

        values = bundle.logits((images.image(row) for row in range(len(images))), show)
        tags = Tags.of(columns[name], len(images), *columns.values())
        write_pair(paths[images.role], values, images, tags, bundle.manifest["model"]["sha256"])
    return {f"images_{images.role.lower()}": len(images) for images in sets.values()}
