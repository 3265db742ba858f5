"""divide: new labelled images and a bundle -> VAL_SELECT, VAL_CALIB and TEST of what its model has not seen.

The rules are those of split, near-duplicates and drives among the new images included. What differs: nothing trains;
groups with an image that the bundle's model was fitted on are left out, see `natix_lib.data.trained`; roles that the
data's owner gave are not kept, because they speak of a training; and a class may be absent, as it may be from a month.
"""

from collections.abc import Mapping
from typing import Any

from natix_lib import config
from natix_lib.bundle.contents import read_bundle
from natix_lib.config.step_settings import DivideSettings, SplitSettings
from natix_lib.contracts import TEST, VAL_CALIB, VAL_SELECT, require_same
from natix_lib.data.sets import indexed_images
from natix_lib.data.trained import trained_of
from natix_lib.steps.split import divided, open_ingested, said, write_division


def run(
    settings: Mapping[str, Any],
    *,
    images: str,
    index: str,
    old_bundle: str,
    splits: str,
    val_select_set: str,
    val_calib_set: str,
    test_set: str,
    links: str,
    data_report: str,
) -> dict[str, float]:
    """Divide new images into VAL_SELECT, VAL_CALIB and TEST.

    Args:
        settings: What divide reads of the config: the keys of `DivideSettings`.
        images: Folder of all encoded images.
        index: File with what is known of each of them.
        old_bundle: Folder of the bundle whose policy is renewed.
        splits: Path to write splits.json to.
        val_select_set: Folder to write the images of VAL_SELECT to.
        val_calib_set: Folder to write the images of VAL_CALIB to.
        test_set: Folder to write the images of TEST to.
        links: Path to write what joins which images to, as Parquet.
        data_report: Path to write the data report to, as HTML.

    Returns:
        As split.

    Raises:
        DataError: If too few images are left for three roles with two classes each.
        CalibrationError: If `scrc` is given and VAL_CALIB has too few groups for anything to be certified.
        ContractError: If the classes or the size of the images are not those of the bundle, or it cannot tell what its
            model was fitted on.
    """
    sections = config.parse(DivideSettings, settings)
    bundle = read_bundle(old_bundle)
    ingested, folders_of_images = open_ingested(index, images)
    asked, manifest = sections.recalibrate.ratios, bundle.manifest
    for key in ("class_names", "positive_classes"):
        require_same(f"data.{key}", manifest[key], "the bundle", ingested.document[key], "the new images")
    side = "resize_shorter_side"
    require_same(f"data.{side}", manifest["transform"][side], "the bundle", ingested.document[side], "the new images")
    trained = trained_of(bundle.splits, manifest["provenance"]["splits_sha256"])
    stored = indexed_images(folders_of_images, ingested)
    ratios = config.Ratios.model_construct(
        train=0.0, val_select=asked.val_select, val_calib=asked.val_calib, test=asked.test
    )
    split = sections.split.model_copy(update={"ratios": ratios, "min_per_class": 0, "previous": "", "use_given": False})
    made = divided(ingested, SplitSettings.model_construct(split=split, scrc=sections.scrc), stored, None, trained)
    folders = {VAL_SELECT: val_select_set, VAL_CALIB: val_calib_set, TEST: test_set}
    write_division(made, ingested, stored, folders, splits, links, data_report)
    return said(*made)
