"""fetch: hub id, folder, gs://, s3:// or `patches` -> backbone, loaded once to prove that it loads strictly."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natix_lib import config
from natix_lib.backbones.loading import load_backbone, weights_sha256
from natix_lib.backbones.sources import copy_backbone, is_folder, licence, normalisation
from natix_lib.config.step_settings import FetchSettings
from natix_lib.contracts import ARTIFACTS, write_manifest
from natix_lib.files import file_table
from natix_lib.steps.fingerprints import BACKBONE, require_unchanged


def run(
    settings: Mapping[str, Any], *, backbone: str, backbone_fingerprint: str = "", token_secret: str = ""
) -> dict[str, float]:
    """Copy a backbone's files and describe them.

    Args:
        settings: What fetch reads of the config: the keys of `FetchSettings`.
        backbone: Folder to write the backbone to.
        backbone_fingerprint: What was told of the backbone's folder, see `steps.fingerprints`; "" where nothing was.
        token_secret: Name of a secret in Secret Manager that holds the hub's token; "" leaves it to HF_TOKEN.

    Returns:
        `parameters`, in millions.

    Raises:
        NatixError: If the source cannot be read, was changed meanwhile, or does not load strictly.
    """
    fetch_settings = config.parse(FetchSettings, settings)
    folder, source = Path(backbone), fetch_settings.backbone_id
    told = backbone_fingerprint if is_folder(source) else ""
    require_unchanged(BACKBONE, source, told)
    with tempfile.TemporaryDirectory() as scratch:
        copy_backbone(source, fetch_settings.backbone_revision, folder, Path(scratch), token_secret)
    require_unchanged(BACKBONE, source, told)
    model = load_backbone(folder)
    parameters = sum(p.numel() for p in model.parameters())
    mean, std = normalisation(folder)
    model_config: Any = model.config
    files = file_table(folder, leave_out=ARTIFACTS["backbone"].manifest)
    write_manifest(
        folder,
        "backbone",
        {
            "source": Path(source).name if is_folder(source) and Path(source).is_dir() else source,
            "revision": fetch_settings.backbone_revision,
            "model_type": model_config.model_type,
            "hidden_size": int(model_config.hidden_size),
            "patch_size": int(model_config.patch_size),
            "parameters": parameters,
            "licence": licence(source, folder),
            "weights_sha256": weights_sha256(files),
            "image_mean": mean,
            "image_std": std,
        },
        files,
    )
    return {"parameters_millions": round(parameters / 1e6, 3)}
