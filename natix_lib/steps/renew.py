"""renew: a bundle, a new policy and new splits -> a new bundle with the same model.

The chain is checked as in export: the policy was fitted on logits of this model and these splits. What drift is told by
is measured on the new VAL_CALIB. The files of the model, its golden images and its licences are the old bundle's, byte
for byte, and so are the figures of parity, because they say how far the ONNX file is from the trained weights and
neither has changed. A new bundle is published only after it has been loaded back and has repeated its golden images. It
names the one whose policy it renews (`renewed_from`).
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natix_lib import config
from natix_lib.bundle.contents import DRIFT, SPLITS, read_bundle
from natix_lib.bundle.runtime import Bundle
from natix_lib.config.step_settings import RenewSettings
from natix_lib.contracts import ARTIFACTS, VAL_CALIB, read_hashed_document, require_same, write_manifest
from natix_lib.data.sets import open_set
from natix_lib.decisions import Policy
from natix_lib.decisions.promise import is_certified
from natix_lib.errors import ContractError
from natix_lib.files import JsonDict, write_json
from natix_lib.logits import read_logits
from natix_lib.steps.published import drift_reference, publish
from natix_lib.transform import Transform

POLICY = "scrcparams"


def run(
    settings: Mapping[str, Any],
    *,
    old_bundle: str,
    val_calib_set: str,
    splits: str,
    val_calib_logits: str,
    scrcparams: str,
    bundle: str,
) -> dict[str, float]:
    """Write a bundle with the model of another, and publish it when `publish_uri` says where.

    Args:
        settings: What renew reads of the config: the keys of `RenewSettings`.
        old_bundle: Folder of the bundle whose policy is renewed.
        val_calib_set: Folder with the set of VAL_CALIB, of the new images.
        splits: Path of splits.json, of the same.
        val_calib_logits: File with the logits that the new policy was fitted on.
        scrcparams: Path of scrcparams.json, the new policy.
        bundle: Folder to write the new bundle to.

    Returns:
        The size in MB, and whether the new policy and the old one are certified.

    Raises:
        ContractError: If the policy, the logits, the splits and the model do not belong together.
        BundleError: If the new bundle does not repeat its golden images.
        StorageError: If the place to publish to is taken or cannot be written.
    """
    publish_uri = config.parse(RenewSettings, settings).publish_uri
    old = read_bundle(old_bundle)
    logits = read_logits(val_calib_logits)
    policy, policy_sha256 = read_hashed_document(scrcparams, POLICY)
    division, splits_sha256 = read_hashed_document(splits, "splits")
    Policy.from_document(policy, Path(scrcparams))
    images = open_set(val_calib_set, VAL_CALIB)
    require_same("splits_sha256", images.splits_sha256, "val_calib_set", splits_sha256, SPLITS)
    _check_chain(old.manifest, logits.header, policy, {"splits_sha256": splits_sha256, "logits_sha256": logits.sha256})

    folder, source = Path(bundle), Path(old_bundle)
    policy_file = ARTIFACTS[POLICY].file
    replaced = {old.manifest["policy"]["file"], policy_file, SPLITS, DRIFT}
    files = {name: entry for name, entry in old.manifest["files"].items() if name not in replaced}
    new = {policy_file: (Path(scrcparams), policy_sha256), SPLITS: (Path(splits), splits_sha256)}
    for name, path in {
        **{name: source / name for name in files},
        **{name: path for name, (path, _) in new.items()},
    }.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    files |= {name: {"sha256": sha256, "bytes": path.stat().st_size} for name, (path, sha256) in new.items()}
    body = {key: value for key, value in old.manifest.items() if key not in ("artifact", "files", "digest")}
    certified = is_certified(policy)
    body["policy"] = {"step": "calibrate", "file": policy_file, "sha256": policy_sha256, "certified": certified}
    body["provenance"] = {
        **old.manifest["provenance"],
        "dataset_fingerprint": division["dataset_fingerprint"],
        "splits_sha256": splits_sha256,
        "logits_sha256": logits.sha256,
        "renewed_from": old.sha256,
    }
    model_sha256, transform = old.manifest["model"]["sha256"], Transform.from_document(old.manifest["transform"])
    write_json(folder / DRIFT, drift_reference(images, logits, policy, model_sha256, transform))
    write_manifest(folder, "bundle", body, files)
    Bundle.load(folder)
    publish(folder, publish_uri)
    return {
        "megabytes": sum(entry["bytes"] for entry in files.values()) / 1e6,
        "certified": float(certified),
        "certified_before": float(old.manifest["policy"]["certified"]),
    }


def _check_chain(manifest: JsonDict, header: Mapping[str, str], policy: JsonDict, expected: Mapping[str, str]) -> None:
    """The policy and the logits must come from the bundle's model, and be of one division."""
    name, provenance = ARTIFACTS[POLICY].file, policy["provenance"]
    if not header:
        raise ContractError("renew needs logits with provenance, got a bare .pt of VAL_CALIB logits")
    model_sha256 = manifest["model"]["sha256"]
    require_same("model_sha256", model_sha256, "the old bundle", header.get("model_sha256"), "VAL_CALIB logits")
    require_same("model_sha256", model_sha256, "the old bundle", provenance.get("model_sha256"), name)
    for key, value in expected.items():
        require_same(key, value, "splits and logits", provenance.get(key), name)
    for key in ("class_names", "positive_classes"):
        require_same(key, manifest[key], "the old bundle", policy[key], name)
