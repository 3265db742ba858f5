"""export: classifier + exactly one policy + splits -> bundle.

The chain is checked link by link: the policy was fitted on logits of this model and these splits, and the ONNX file
repeats those logits on VAL_CALIB images. A bundle is published only after it has been loaded back and has repeated
its golden images.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from natix_lib import config
from natix_lib.bundle.contents import DRIFT, GOLDEN, MODEL, SPLITS, Documents
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
    read_hashed_document,
    require_same,
    write_manifest,
)
from natix_lib.data.decode import open_image
from natix_lib.data.sets import RoleSet, open_set
from natix_lib.decisions import Policy
from natix_lib.decisions.promise import is_certified
from natix_lib.errors import BundleError, ContractError
from natix_lib.files import write_json
from natix_lib.logits import LogitsFile, read_logits
from natix_lib.steps.published import drift_reference, publish, spread
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
        settings: What export reads of the config: the keys of `ExportSettings`.
        val_calib_set: Folder with the set of VAL_CALIB.
        splits: Path of splits.json.
        classifier: Folder of the classifier.
        val_calib_logits: File with the logits that the policies were fitted on.
        thresholds: Path of thresholds.json, the policy of sweep.
        scrcparams: Path of scrcparams.json, the policy of calibrate.
        bundle: Folder to write the bundle to.

    Returns:
        The parity figures and the size in MB.

    Raises:
        ContractError: If the policy, the logits, the splits and the model do not belong together.
        BundleError: If the ONNX model does not repeat the logits.
    """
    section = config.parse(ExportSettings, settings).export
    artifact = POLICY_OF[section.policy]
    policy_path = Path({"thresholds": thresholds, "scrcparams": scrcparams}[artifact])
    model, manifest = load_classifier(classifier)
    images = open_set(val_calib_set, VAL_CALIB)
    calib_logits = read_logits(val_calib_logits)
    document, policy_sha256 = read_hashed_document(policy_path, artifact)
    division, splits_sha256 = read_hashed_document(splits, "splits")
    Policy.from_document(document, policy_path)
    require_same("splits_sha256", images.splits_sha256, "val_calib_set", splits_sha256, SPLITS)
    _check_chain(manifest, splits_sha256, calib_logits, document, artifact)

    folder = Path(bundle)
    folder.mkdir(parents=True, exist_ok=True)
    export_onnx(model, manifest["transform"]["image_size"], folder / MODEL, INPUT, OUTPUT)
    copied = {name: manifest["files"][name] for name in (WEIGHTS, BACKBONE_CONFIG, *manifest["licence"]["files"])}
    for name in copied:
        shutil.copyfile(Path(classifier) / name, folder / name)
    policy_file = ARTIFACTS[artifact].file
    for name, path, sha256 in ((policy_file, policy_path, policy_sha256), (SPLITS, Path(splits), splits_sha256)):
        shutil.copyfile(path, folder / name)
        copied[name] = {"sha256": sha256, "bytes": path.stat().st_size}
    golden = draw_golden_images(folder / "golden")
    draft = {
        "class_names": manifest["class_names"],
        "positive_classes": manifest["positive_classes"],
        "transform": manifest["transform"],
        "policy": {
            "step": section.policy,
            "file": policy_file,
            "sha256": policy_sha256,
            "certified": is_certified(document),
        },
        "model": {"sha256": manifest["model_sha256"], "onnx": MODEL, "dtype": manifest["dtype"]},
        "licence": manifest["licence"],
        "backbone_source": manifest["backbone_source"],
        "provenance": {
            **manifest["provenance"],
            "model_sha256": manifest["model_sha256"],
            "logits_sha256": calib_logits.sha256,
            **({"prior": manifest["prior"]["sentence"]} if manifest.get("prior") else {}),
        },
        **({"grid": grid} if (grid := manifest.get("trained", {}).get("grid")) else {}),
    }
    runtime = Bundle(folder, Documents(draft, document, division))
    golden_logits = _torch_logits(model, runtime, golden)
    write_json(
        folder / GOLDEN,
        {
            "images": golden,
            "logits": golden_logits.tolist(),
            "model_sha256": manifest["model_sha256"],
            "transform": manifest["transform"],
        },
    )
    write_json(
        folder / DRIFT, drift_reference(images, calib_logits, document, manifest["model_sha256"], runtime.transform)
    )
    parity = _parity(runtime, golden, golden_logits, images, calib_logits.values, section)
    write_manifest(folder, "bundle", {**draft, "parity": parity}, copied)
    Bundle.load(folder)  # reads what was written, the copies too, once and for all that follows
    publish(folder, section.publish_uri)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "parity_golden": parity["golden"],
        "parity_val_calib": parity["val_calib"],
        "megabytes": size / 1e6,
    }


def _check_chain(
    manifest: dict[str, Any],
    splits_sha256: str,
    calib_logits: LogitsFile,
    policy: dict[str, Any],
    artifact: str,
) -> None:
    """Every artifact must come from this model, these splits and these logits."""
    provenance = policy.get("provenance", {})
    name = ARTIFACTS[artifact].file
    require_same("splits_sha256", manifest["provenance"]["splits_sha256"], "classifier", splits_sha256, SPLITS)
    if not calib_logits.header:
        raise ContractError("export needs logits with provenance, got a bare .pt of VAL_CALIB logits")
    require_same(
        "model_sha256",
        manifest["model_sha256"],
        "classifier",
        calib_logits.header.get("model_sha256"),
        "VAL_CALIB logits",
    )
    require_same("model_sha256", manifest["model_sha256"], "classifier", provenance.get("model_sha256"), name)
    require_same("splits_sha256", splits_sha256, SPLITS, provenance.get("splits_sha256"), name)
    require_same("logits_sha256", calib_logits.sha256, "VAL_CALIB logits", provenance.get("logits_sha256"), name)
    require_same(
        "dataset_fingerprint",
        manifest["provenance"]["dataset_fingerprint"],
        "classifier",
        provenance.get("dataset_fingerprint"),
        name,
    )
    for key in ("class_names", "positive_classes"):
        require_same(key, manifest[key], "classifier", policy[key], name)


def _golden_images(runtime: Bundle, names: list[str]) -> list[Any]:
    side = runtime.transform.resize_shorter_side
    return [open_image(runtime.folder / "golden" / name, side) for name in names]


def _torch_logits(model: Any, runtime: Bundle, names: list[str]) -> Any:
    import torch

    with torch.no_grad():
        rows = [
            model(torch.from_numpy(runtime.transform(image))).mean(dim=0).numpy()
            for image in _golden_images(runtime, names)
        ]
    return np.stack(rows)


def _parity(
    runtime: Bundle, golden: list[str], golden_logits: Any, images: RoleSet, calib_logits: Any, section: config.Export
) -> dict[str, Any]:
    """How far ONNX is from torch on the golden images, and from the policy's logits on VAL_CALIB."""
    rows = spread(len(images), section.parity_images)
    figures = {
        "golden": largest_difference(runtime.logits(_golden_images(runtime, golden)), golden_logits),
        "val_calib": largest_difference(runtime.logits(images.image(int(row)) for row in rows), calib_logits[rows]),
    }
    for name, figure in figures.items():
        if not figure <= section.parity_tolerance:
            raise BundleError(
                f"the ONNX model differs from the {name} logits by {figure:.2e}, more than "
                f"export.parity_tolerance {section.parity_tolerance:.0e}"
            )
    # Two digits: the last ones depend on the processor, and a bundle's hash should not.
    rounded = {name: min(float(f"{figure:.1e}"), section.parity_tolerance) for name, figure in figures.items()}
    return {**rounded, "images": len(rows), "tolerance": section.parity_tolerance}
