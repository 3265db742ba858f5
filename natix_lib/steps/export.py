"""export, phase 6: classifier + exactly one policy + splits -> bundle.

The chain is checked link by link: the policy was fitted on logits of this model and these splits, and the ONNX file
repeats those logits on VAL_CALIB images. A bundle is published only after it has been loaded back and has repeated
its golden images.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from natix_lib import config, storage
from natix_lib.bundle.contents import GOLDEN, MODEL, SPLITS, Documents
from natix_lib.bundle.golden import draw_golden_images
from natix_lib.bundle.runtime import Bundle, largest_difference
from natix_lib.bundle.session import INPUT, OUTPUT
from natix_lib.config.step_settings import ExportSettings
from natix_lib.contracts import (
    ARTIFACTS,
    BACKBONE_CONFIG,
    POLICY_OF,
    VAL_CALIB,
    WEIGHTS,
    read_document,
    require_same,
    write_manifest,
)
from natix_lib.data.decode import open_image
from natix_lib.data.sets import RoleSet, open_set
from natix_lib.decisions import Policy
from natix_lib.errors import BundleError, ContractError
from natix_lib.files import sha256_file, write_json
from natix_lib.logits import LogitsFile, read_logits
from natix_lib.progress import Lines
from natix_lib.training.artifact import load_classifier
from natix_lib.training.onnx_export import export_onnx


def run(
    settings: Mapping[str, Any],
    *,
    val_calib_set: str,
    splits: str,
    classifier: str,
    val_calib_logits: str,
    thresholds: str,
    scrcparams: str,
    bundle: str,
) -> dict[str, float]:
    """Write a bundle, and publish it when `export.publish_uri` says where.

    Args:
        settings: `ExportSettings`.
        val_calib_set: Set of VAL_CALIB.
        splits: splits.json.
        classifier: Classifier folder.
        val_calib_logits: The logits that the policies were fitted on.
        thresholds: thresholds.json.
        scrcparams: scrcparams.json.
        bundle: Folder to write.

    Returns:
        The parity figures and the size in MB.

    Raises:
        ContractError: If the policy, the logits, the splits and the model do not belong together.
        BundleError: If the ONNX model does not repeat the logits.
    """
    wanted = config.parse(ExportSettings, settings).export
    artifact = POLICY_OF[wanted.policy]
    policy_path = Path({"thresholds": thresholds, "scrcparams": scrcparams}[artifact])
    model, facts = load_classifier(classifier)
    images = open_set(val_calib_set, VAL_CALIB)
    fitted = read_logits(val_calib_logits)
    document, division = read_document(policy_path, artifact), read_document(splits, "splits")
    policy_sha256, splits_sha256 = sha256_file(policy_path), sha256_file(splits)
    Policy.from_document(document, policy_path)
    require_same("splits_sha256", images.splits_sha256, "val_calib_set", splits_sha256, SPLITS)
    _check_chain(facts, splits_sha256, fitted, document, artifact)

    folder = Path(bundle)
    folder.mkdir(parents=True, exist_ok=True)
    export_onnx(model, facts["transform"]["image_size"], folder / MODEL, INPUT, OUTPUT)
    for name in (WEIGHTS, BACKBONE_CONFIG, *facts["licence"]["files"]):
        shutil.copyfile(Path(classifier) / name, folder / name)
    policy_file, splits_file = ARTIFACTS[artifact].file, ARTIFACTS["splits"].file
    shutil.copyfile(policy_path, folder / policy_file)
    shutil.copyfile(splits, folder / splits_file)
    golden = draw_golden_images(folder / "golden")
    draft = {
        "class_names": facts["class_names"],
        "positive_classes": facts["positive_classes"],
        "transform": facts["transform"],
        "policy": {"step": wanted.policy, "file": policy_file, "sha256": policy_sha256},
        "model": {"sha256": facts["model_sha256"], "onnx": MODEL, "dtype": facts["dtype"]},
        "licence": facts["licence"],
        "backbone_source": facts["backbone_source"],
        "provenance": {
            **facts["provenance"],
            "model_sha256": facts["model_sha256"],
            "logits_sha256": fitted.sha256,
        },
    }
    runtime = Bundle(folder, Documents(draft, document, division))
    golden_logits = _torch_logits(model, runtime, golden)
    record = {
        "images": golden,
        "logits": golden_logits.tolist(),
        "model_sha256": facts["model_sha256"],
        "transform": facts["transform"],
    }
    write_json(folder / GOLDEN, record)
    parity = _parity(runtime, golden, golden_logits, images, fitted.values, wanted)
    write_manifest(folder, "bundle", {**draft, "parity": parity})
    Bundle.load(folder)
    if wanted.publish_uri:
        place = storage.publish_folder(folder, wanted.publish_uri, ARTIFACTS["bundle"].manifest)
        Lines().say(f"published {place}")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "parity_golden": parity["golden"],
        "parity_val_calib": parity["val_calib"],
        "megabytes": size / 1e6,
    }


def _check_chain(
    facts: dict[str, Any],
    splits_sha256: str,
    fitted: LogitsFile,
    policy: dict[str, Any],
    artifact: str,
) -> None:
    """Every artifact must come from this model, these splits and these logits."""
    provenance = policy.get("provenance", {})
    name = ARTIFACTS[artifact].file
    require_same("splits_sha256", facts["provenance"]["splits_sha256"], "classifier", splits_sha256, SPLITS)
    if not fitted.header:
        raise ContractError("export needs logits with provenance, got a bare .pt of VAL_CALIB logits")
    require_same(
        "model_sha256", facts["model_sha256"], "classifier", fitted.header.get("model_sha256"), "VAL_CALIB logits"
    )
    require_same("model_sha256", facts["model_sha256"], "classifier", provenance.get("model_sha256"), name)
    require_same("splits_sha256", splits_sha256, SPLITS, provenance.get("splits_sha256"), name)
    require_same("logits_sha256", fitted.sha256, "VAL_CALIB logits", provenance.get("logits_sha256"), name)
    require_same(
        "dataset_fingerprint",
        facts["provenance"]["dataset_fingerprint"],
        "classifier",
        provenance.get("dataset_fingerprint"),
        name,
    )
    for key in ("class_names", "positive_classes"):
        require_same(key, facts[key], "classifier", policy[key], name)


def _golden_images(runtime: Bundle, names: list[str]) -> list[Any]:
    return [open_image(runtime.folder / "golden" / name) for name in names]


def _torch_logits(model: Any, runtime: Bundle, names: list[str]) -> Any:
    import torch

    with torch.no_grad():
        rows = [
            model(torch.from_numpy(runtime.transform(image))).mean(dim=0).numpy()
            for image in _golden_images(runtime, names)
        ]
    return np.stack(rows)


def _parity(
    runtime: Bundle, golden: list[str], golden_logits: Any, images: RoleSet, fitted: Any, wanted: config.Export
) -> dict[str, Any]:
    """How far ONNX is from torch on the golden images, and from the policy's logits on VAL_CALIB."""
    rows = np.unique(np.linspace(0, len(images) - 1, min(wanted.parity_images, len(images))).round().astype(int))
    figures = {
        "golden": largest_difference(runtime.logits(_golden_images(runtime, golden)), golden_logits),
        "val_calib": largest_difference(runtime.logits(images.image(int(row)) for row in rows), fitted[rows]),
    }
    for name, figure in figures.items():
        if not figure <= wanted.parity_tolerance:
            raise BundleError(
                f"the ONNX model differs from the {name} logits by {figure:.2e}, more than "
                f"export.parity_tolerance {wanted.parity_tolerance:.0e}"
            )
    # Two digits: the last ones depend on the processor, and a bundle's hash should not.
    rounded = {name: min(float(f"{figure:.1e}"), wanted.parity_tolerance) for name, figure in figures.items()}
    return {**rounded, "images": len(rows), "tolerance": wanted.parity_tolerance}
