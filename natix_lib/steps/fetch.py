"""fetch: hub id, folder or gs:// -> backbone, loaded once to prove that it loads strictly."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natix_lib import config
from natix_lib.backbones.loading import load_backbone, weights_sha256
from natix_lib.backbones.sources import copy_backbone, licence, normalisation
from natix_lib.contracts import write_manifest
from natix_lib.step_settings import FetchSettings


def run(settings: Mapping[str, Any], *, backbone: str, token_secret: str = "") -> dict[str, float]:
    """Copy a backbone's files and describe them.

    Args:
        settings: `FetchSettings`.
        backbone: Folder to write.
        token_secret: Secret in Secret Manager with the hub's token; "" leaves it to HF_TOKEN.

    Returns:
        `parameters`, in millions.

    Raises:
        NatixError: If the source cannot be read or does not load strictly.
    """
    wanted = config.parse(FetchSettings, settings)
    folder = Path(backbone)
    with tempfile.TemporaryDirectory() as scratch:
        copy_backbone(wanted.backbone_id, wanted.backbone_revision, folder, Path(scratch), token_secret)
    model = load_backbone(folder)
    parameters = sum(p.numel() for p in model.parameters())
    mean, std = normalisation(folder)
    model_config: Any = model.config
    write_manifest(
        folder,
        "backbone",
        {
            "source": Path(wanted.backbone_id).name if Path(wanted.backbone_id).is_dir() else wanted.backbone_id,
            "revision": wanted.backbone_revision,
            "model_type": model_config.model_type,
            "hidden_size": int(model_config.hidden_size),
            "patch_size": int(model_config.patch_size),
            "parameters": parameters,
            "licence": licence(wanted.backbone_id, folder),
            "weights_sha256": weights_sha256(folder),
            "image_mean": mean,
            "image_std": std,
        },
    )
    return {"parameters_millions": round(parameters / 1e6, 3)}
