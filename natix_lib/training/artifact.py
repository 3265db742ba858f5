"""The classifier artifact: one safetensors file of all weights, the backbone's config, a manifest."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from natix_lib.contracts import ARTIFACTS, BACKBONE_CONFIG, WEIGHTS, read_manifest, require_same, write_manifest
from natix_lib.errors import ContractError
from natix_lib.files import JsonDict, file_table, read_json, write_bytes, write_json
from natix_lib.training.classifier import Classifier


def write_classifier(
    folder: str | Path, classifier: Classifier, description: JsonDict, licences: JsonDict | None = None
) -> JsonDict:
    """Write a classifier folder, its manifest last.

    Args:
        folder: Created where it is not there yet.
        classifier: On the CPU, float32.
        description: Class names, transform, provenance and what else the manifest tells.
        licences: Entries of the table of files for the licence files that are already there.

    Returns:
        The manifest.
    """
    root = Path(folder)
    weights = {name: value.contiguous() for name, value in sorted(classifier.state_dict().items())}
    write_bytes(root / WEIGHTS, save(weights))
    config: Any = classifier.backbone.config
    placeless = {key: value for key, value in config.to_dict().items() if key != "_name_or_path"}
    write_json(root / BACKBONE_CONFIG, placeless)
    files = file_table(root, ARTIFACTS["classifier"].manifest, licences)
    return write_manifest(
        root,
        "classifier",
        {
            **description,
            "model_sha256": files[WEIGHTS]["sha256"],
            "dtype": "float32",
            "head": classifier.head_description(),
        },
        files,
    )


def load_classifier(folder: str | Path) -> tuple[Classifier, JsonDict]:
    """Load a classifier strictly, in eval mode on the CPU, with its manifest.

    Raises:
        ContractError: If a file is altered or a key is missing, unexpected or of another shape.
    """
    root = Path(folder)
    manifest = read_manifest(root, "classifier")
    weights = manifest["files"].get(WEIGHTS, {}).get("sha256")
    require_same("model_sha256", manifest["model_sha256"], ARTIFACTS["classifier"].manifest, weights, WEIGHTS)
    classifier = Classifier.from_description(
        read_json(root / BACKBONE_CONFIG), manifest["head"], len(manifest["class_names"])
    )
    try:
        classifier.load_state_dict(load_file(root / WEIGHTS), strict=True)
    except RuntimeError as error:
        raise ContractError(f"classifier {root} does not fit its description: {error}") from error
    return classifier, manifest
