"""What the steps exchange: step names, artifact names, schema versions, and who may read which split role.

One table (`STEPS`) says what each step takes and gives. The components, the pipeline, the command line and the
published run folder are all checked against it or made from it.

Single-file artifacts have no suffix under KFP (the launcher names them); `Artifact.file` is the name they get
where a person looks. Logits and labels are safetensors, not the `.pt` of the first trainer: no pickle, hashes in
the header, and a CPU pod that reads them needs no torch. A `.pt` is still read (see `natix_lib/logits.py`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natix_lib.errors import ContractError
from natix_lib.files import JsonDict, check_files, file_table, read_json, write_json

SCHEMA_VERSION = 1

TRAIN, VAL_SELECT, VAL_CALIB, TEST = ROLES = ("TRAIN", "VAL_SELECT", "VAL_CALIB", "TEST")
# What data owners call the roles; training to evaluation as Hugging Face datasets reads them, where eval is a test set.
ROLE_ALIASES = {
    **dict.fromkeys(("training",), TRAIN),
    **dict.fromkeys(("validation", "val", "valid", "dev", "development"), VAL_SELECT),
    **dict.fromkeys(("calib", "calibration"), VAL_CALIB),
    **dict.fromkeys(("val_test", "testing", "eval", "evaluation", "holdout", "hold_out", "heldout"), TEST),
}


@dataclass(frozen=True)
class Artifact:
    """An artifact: its name in components, the file or folder name in a run folder, and a folder's manifest."""

    name: str
    file: str
    manifest: str = ""  # set for folders


@dataclass(frozen=True)
class Step:
    """A step: the artifacts it takes and gives, the roles whose images or labels it may open, GPU or CPU."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reads: tuple[str, ...] = ()
    gpu: bool = False


ARTIFACTS = {
    artifact.name: artifact
    for artifact in (
        Artifact("dataset", "dataset", "dataset.json"),
        Artifact("splits", "splits.json"),
        Artifact("backbone", "backbone", "backbone.json"),
        Artifact("adapted_backbone", "backbone", "backbone.json"),
        Artifact("adaptation_curve", "metrics.csv"),
        Artifact("adaptation_report", "report.html"),
        Artifact("classifier", "classifier", "classifier.json"),
        Artifact("training_curve", "metrics.csv"),
        Artifact("val_calib_logits", "val_calib_logits.safetensors"),
        Artifact("val_calib_labels", "val_calib_labels.safetensors"),
        Artifact("thresholds", "thresholds.json"),
        Artifact("sweep_curve", "sweep_curve.parquet"),
        Artifact("sweep_report", "sweep.html"),
        Artifact("scrcparams", "scrcparams.json"),
        Artifact("scrc_curve", "scrc_curve.parquet"),
        Artifact("calibration_report", "calibration.html"),
        Artifact("bundle", "bundle", "bundle.json"),
        Artifact("evaluation", "evaluation.json"),
        Artifact("report", "report.html"),
    )
}

STEPS = {
    "ingest": Step((), ("dataset",), reads=ROLES),
    "split": Step(("dataset",), ("splits",), reads=ROLES),
    "fetch": Step((), ("backbone",)),
    "adapt": Step(
        ("dataset", "splits", "backbone"),
        ("adapted_backbone", "adaptation_curve", "adaptation_report"),
        reads=(TRAIN,),
        gpu=True,
    ),
    "train": Step(
        ("dataset", "splits", "backbone"),
        ("classifier", "training_curve", "val_calib_logits", "val_calib_labels"),
        reads=(TRAIN, VAL_SELECT, VAL_CALIB),
        gpu=True,
    ),
    "sweep": Step(
        ("val_calib_logits", "val_calib_labels"), ("thresholds", "sweep_curve", "sweep_report"), reads=(VAL_CALIB,)
    ),
    "calibrate": Step(
        ("val_calib_logits", "val_calib_labels"),
        ("scrcparams", "scrc_curve", "calibration_report"),
        reads=(VAL_CALIB,),
    ),
    "export": Step(
        ("dataset", "splits", "classifier", "val_calib_logits", "thresholds", "scrcparams"),
        ("bundle",),
        reads=(VAL_CALIB,),
    ),
    "evaluate": Step(("dataset", "splits", "bundle"), ("evaluation", "report"), reads=(TEST,)),
}

PROBE = "adapt.probe"  # labels that adaptation itself may not see
READERS = {**{name: step.reads for name, step in STEPS.items()}, PROBE: (TRAIN, VAL_SELECT)}


def parse_role(text: str) -> str:
    """The role a data owner's word means: any case, and the aliases of `ROLE_ALIASES`.

    Raises:
        ContractError: If the word is no role.
    """
    word = text.strip().lower()
    role = ROLE_ALIASES.get(word, word.upper())
    if role not in ROLES:
        raise ContractError(f"split role must be one of {', '.join(ROLES)}, got {text!r}")
    return role


def require_may_read(step: str, role: str) -> None:
    """Refuse a step, or `PROBE`, that opens a split role it may not read.

    Raises:
        ContractError: If `step` is unknown or may not read `role`.
    """
    if step not in READERS:
        raise ContractError(f"unknown step {step!r}: one of {', '.join(READERS)}")
    allowed = READERS[step]
    if role not in allowed:
        raise ContractError(f"step {step} may not read split {role}: it may read {', '.join(allowed) or 'none'}")


def write_manifest(folder: str | Path, artifact: str, body: JsonDict) -> JsonDict:
    """Write a folder artifact's manifest last: `body`, the schema version, and a table of all its files.

    Returns:
        The manifest as written.
    """
    name = ARTIFACTS[artifact].manifest
    manifest = {
        **body,
        "artifact": artifact,
        "schema_version": SCHEMA_VERSION,
        "files": file_table(folder, leave_out=name),
    }
    write_json(Path(folder) / name, manifest)
    return manifest


def read_manifest(folder: str | Path, artifact: str, verify: bool = True) -> JsonDict:
    """Read a folder artifact's manifest, check its schema and, unless told otherwise, every file's hash.

    Raises:
        ContractError: If the manifest is missing (the writer did not finish), of another artifact or schema, or if a
            file is missing or altered.
    """
    root = Path(folder)
    path = root / ARTIFACTS[artifact].manifest
    if not root.is_dir():
        raise ContractError(f"{artifact} folder {root} does not exist")
    if not path.is_file():
        raise ContractError(f"{artifact} folder {root} has no {path.name}: it was never finished, or is something else")
    manifest = read_json(path)
    check_schema(manifest, artifact, path)
    if verify:
        check_files(root, manifest["files"], artifact)
    return manifest


def check_schema(document: JsonDict, artifact: str, path: str | Path) -> None:
    """Refuse a document of another artifact or schema version.

    Raises:
        ContractError: If it is not `artifact` at `SCHEMA_VERSION`.
    """
    if document.get("artifact") != artifact:
        raise ContractError(f"{path} must be a {artifact} document, got {document.get('artifact')!r}")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise ContractError(
            f"{path} has schema_version {document.get('schema_version')!r}, this natix reads {SCHEMA_VERSION}"
        )


def require_same(what: str, expected: Any, expected_from: str, found: Any, found_from: str) -> None:
    """Refuse two artifacts whose record of a common ancestor differs.

    Raises:
        ContractError: Naming both sides.
    """
    if expected != found:
        raise ContractError(f"{what} differs: {expected_from} has {expected!r}, {found_from} has {found!r}")
