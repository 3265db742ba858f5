"""What the steps exchange: step names, artifact names and types, schema versions, and the sets of images.

One table (`STEPS`) says what each step of training takes and gives; `RENEWING` has the steps that the pipeline of
recalibration has beside some of these, and `RECALIBRATION` is their order. The components, the pipelines, the command
line and the published run folder are all checked against these or made from them.

A split role is an artifact of its own, so which images a step can read is what the table gives it: TEST is an input of
evaluate alone, and the images without a label are one of adapt alone. A dataset in common, of which each step promised
in code to open its roles, was given up: every pod downloaded all images, and the proof was in our code rather than in
the pipeline's picture.

Single-file artifacts have no suffix under KFP (the launcher names them); `Artifact.file` is the name they get
where a person looks. Logits and labels are safetensors, not the `.pt` of the first trainer (which README explains): no
pickle, hashes in the header, and a CPU pod that reads them needs no torch. A `.pt` is still read (see
`natix_lib/logits.py`).
"""

import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natix_lib.errors import ContractError
from natix_lib.files import (
    JsonDict,
    canonical_json,
    check_files,
    file_table,
    read_hashed_json,
    sha256_bytes,
    write_json,
)

SCHEMA_VERSION = 3  # 1 had one dataset for all steps, 2 one perceptual hash for an image

TRAIN, VAL_SELECT, VAL_CALIB, TEST = ROLES = ("TRAIN", "VAL_SELECT", "VAL_CALIB", "TEST")
# What data owners call the roles; training to evaluation as Hugging Face datasets reads them, where eval is a test set.
ROLE_ALIASES = {
    **dict.fromkeys(("training",), TRAIN),
    **dict.fromkeys(("validation", "val", "valid", "dev", "development"), VAL_SELECT),
    **dict.fromkeys(("calib", "calibration"), VAL_CALIB),
    **dict.fromkeys(("val_test", "testing", "eval", "evaluation", "holdout", "hold_out", "heldout"), TEST),
}


UNLABELLED = "UNLABELLED"  # no role: the images without a label, which adapt alone reads
SETS = {name: f"{name.lower()}_set" for name in (*ROLES, UNLABELLED)}  # the artifact that holds a role's images


@dataclass(frozen=True)
class Artifact:
    """An artifact.

    Attributes:
        name: What components and pipelines call the artifact.
        type: Name of the class of `kfp.dsl` that the artifact is to the pipelines UI.
        file: What the artifact's file or folder is called where a person looks.
        manifest: The name of a folder's manifest; "" for a file.
        published: Whether `natix run` copies it into the run's folder; images stay in the cache.
    """

    name: str
    type: str
    file: str
    manifest: str = ""
    published: bool = True


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        title: What the pipelines UI calls the step: plain words, of which the first is the step's name.
        does: What it does, in a sentence.
        inputs: Names of the artifacts that it takes.
        makes: The artifacts that it makes.
        gpu: Whether it asks for a GPU, on a node that may be reclaimed.
        fingerprint: Its input that tells what it reads of what lies outside of the run, most often over a network, by
            `steps.fingerprints`; "" where it reads nothing of that.
        optional: Of the inputs those that it can do without, all of them together; the pipeline always gives them.
    """

    title: str
    does: str
    inputs: tuple[str, ...]
    makes: tuple[Artifact, ...]
    gpu: bool = False
    fingerprint: str = ""
    optional: tuple[str, ...] = ()

    @property
    def retried(self) -> bool:
        """Whether trying again can help: the error of any other step is in what it was given, and comes again."""
        return self.gpu or bool(self.fingerprint)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the artifacts that it makes."""
        return tuple(artifact.name for artifact in self.makes)


STEPS = {
    "ingest": Step(
        "Ingest the images",
        "Decode the images, turn them upright, resize them once and hash them; list what is rejected.",
        (),
        (
            Artifact("images", "Dataset", "images", "images.json", published=False),
            Artifact("index", "Dataset", "index.parquet"),
            Artifact("rejects", "Artifact", "rejects.csv"),
        ),
        fingerprint="data_fingerprint",
    ),
    "split": Step(
        "Split the images",
        "Divide whole groups of images among TRAIN, VAL_SELECT, VAL_CALIB and TEST, and show the data.",
        ("images", "index"),
        (
            Artifact("splits", "Artifact", "splits.json"),
            *(Artifact(name, "Dataset", name, "set.json", published=False) for name in SETS.values()),
            Artifact("links", "Artifact", "links.parquet"),
            Artifact("data_report", "HTML", "data.html"),
        ),
        fingerprint="previous_fingerprint",
    ),
    "fetch": Step(
        "Fetch the backbone",
        "Get the backbone, load it strictly, and keep its licence.",
        (),
        (Artifact("backbone", "Model", "backbone", "backbone.json"),),
        fingerprint="backbone_fingerprint",
    ),
    "adapt": Step(
        "Adapt the backbone",
        "Adapt the backbone to TRAIN and to images without a label, with ExPLoRA.",
        ("train_set", "unlabelled_set", "backbone"),
        (
            Artifact("adapted_backbone", "Model", "backbone", "backbone.json"),
            Artifact("adaptation_curve", "Artifact", "metrics.csv"),
            Artifact("adaptation_report", "HTML", "report.html"),
        ),
        gpu=True,
    ),
    "train": Step(
        "Train the classifier",
        "Train a classifier, give its logits on VAL_SELECT and VAL_CALIB, and show doubtful labels of TRAIN.",
        ("train_set", "val_select_set", "val_calib_set", "backbone"),
        (
            Artifact("classifier", "Model", "classifier", "classifier.json"),
            Artifact("training_curve", "Artifact", "metrics.csv"),
            Artifact("val_select_logits", "Artifact", "val_select_logits.safetensors"),
            Artifact("val_select_labels", "Artifact", "val_select_labels.safetensors"),
            Artifact("val_calib_logits", "Artifact", "val_calib_logits.safetensors"),
            Artifact("val_calib_labels", "Artifact", "val_calib_labels.safetensors"),
            Artifact("label_doubts", "HTML", "label_doubts.html"),
        ),
        gpu=True,
    ),
    "sweep": Step(
        "Sweep the thresholds",
        "Choose a rejection threshold on VAL_CALIB by an objective; it promises nothing.",
        ("val_calib_logits", "val_calib_labels"),
        (
            Artifact("thresholds", "Artifact", "thresholds.json"),
            Artifact("sweep_curve", "Artifact", "sweep_curve.parquet"),
            Artifact("sweep_report", "HTML", "sweep.html"),
        ),
    ),
    "calibrate": Step(
        "Calibrate and certify",
        "Fit the temperature and certify an accept rule on VAL_CALIB.",
        ("val_calib_logits", "val_calib_labels", "val_select_logits", "val_select_labels"),
        (
            Artifact("scrcparams", "Artifact", "scrcparams.json"),
            Artifact("scrc_curve", "Artifact", "scrc_curve.parquet"),
            Artifact("calibration_report", "HTML", "calibration.html"),
        ),
        optional=("val_select_logits", "val_select_labels"),
    ),
    "export": Step(
        "Export the bundle",
        "Make the bundle: model, one policy, splits and golden images.",
        ("val_calib_set", "splits", "classifier", "val_calib_logits", "thresholds", "scrcparams"),
        (Artifact("bundle", "Model", "bundle", "bundle.json"),),
    ),
    "evaluate": Step(
        "Evaluate on TEST",
        "Measure the bundle on TEST, once, and write the report.",
        ("test_set", "bundle"),
        (Artifact("evaluation", "Artifact", "evaluation.json"), Artifact("report", "HTML", "report.html")),
    ),
}
# What stands for ingest where `data.shards` is above 1: shard, once for each, then gather. They make what ingest makes,
# but the images as a folder for each shard, which split takes all of. Their settings are those of ingest.
SHARDED = {
    "shard": Step(
        "Shard the images",
        "Do of ingest's work what one shard has: decode a part of the images, and list them.",
        (),
        (STEPS["ingest"].makes[0], Artifact("part", "Dataset", "part.parquet")),
        fingerprint="data_fingerprint",
    ),
    "gather": Step(
        "Gather the shards",
        "Join what all shards have listed to one index, and judge it as ingest does.",
        ("part",),
        STEPS["ingest"].makes[1:],
    ),
}
# What the pipeline of recalibration has beside steps of training: a bundle's policy is renewed, and nothing is trained.
RENEWING = {
    "obtain": Step(
        "Obtain the bundle",
        "Get the bundle whose policy is renewed, and open it with all its checks.",
        (),
        (Artifact("old_bundle", "Model", "old_bundle", "bundle.json", published=False),),
        fingerprint="bundle_fingerprint",
    ),
    "divide": Step(
        "Divide the new images",
        "Leave out what the bundle's model was fitted on, and divide the others among VAL_SELECT, VAL_CALIB and TEST.",
        ("images", "index", "old_bundle"),
        tuple(
            artifact
            for artifact in STEPS["split"].makes
            if artifact.name not in (SETS[TRAIN], SETS[UNLABELLED])  # nothing is fitted on them
        ),
    ),
    "score": Step(
        "Score the new images",
        "Give the logits on VAL_SELECT and VAL_CALIB, through the bundle.",
        ("val_select_set", "val_calib_set", "old_bundle"),
        tuple(artifact for artifact in STEPS["train"].makes if artifact.name.startswith("val_")),
    ),
    "renew": Step(
        "Renew the bundle",
        "Make a new bundle: the model of the old one, the new policy and the new splits.",
        ("old_bundle", "val_calib_set", "splits", "val_calib_logits", "scrcparams"),
        STEPS["export"].makes,
    ),
}
RECALIBRATION = ("ingest", "obtain", "divide", "score", "calibrate", "renew", "evaluate")
TASKS = STEPS | SHARDED | RENEWING
FINGERPRINTS = tuple(dict.fromkeys(step.fingerprint for step in STEPS.values() if step.fingerprint))
RECALIBRATION_FINGERPRINTS = tuple(TASKS[step].fingerprint for step in RECALIBRATION if TASKS[step].fingerprint)
ARTIFACTS = {artifact.name: artifact for step in TASKS.values() for artifact in step.makes}

WEIGHTS, BACKBONE_CONFIG = "model.safetensors", "config.json"  # of a classifier, and of its bundle
POLICY_OF = {"sweep": "thresholds", "calibrate": "scrcparams"}  # the policy that a step fits


def step_of(task: str) -> str:
    """The step that a task is or stands for, by which its settings and its caching go."""
    return "ingest" if task in SHARDED else task


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


def write_manifest(folder: str | Path, artifact: str, body: JsonDict, known: JsonDict | None = None) -> JsonDict:
    """Write a folder artifact's manifest last: `body`, the schema version, a table of all its files, and its digest.

    Args:
        folder: The folder, all of whose other files are written.
        artifact: The artifact's name in `ARTIFACTS`.
        body: What the manifest says beside its files and version.
        known: Entries of the table of files that need no reading, as in `file_table`.

    Returns:
        The manifest as written.

    Raises:
        ContractError: If it has not the shape that `read_manifest` asks for.
    """
    path = Path(folder) / ARTIFACTS[artifact].manifest
    manifest = {
        **body,
        "artifact": artifact,
        "schema_version": SCHEMA_VERSION,
        "files": file_table(folder, path.name, known),
    }
    manifest["digest"] = _digest(manifest)
    check_document(manifest, artifact, path)
    write_json(path, manifest)
    return manifest


def read_manifest(folder: str | Path, artifact: str, hash_files: bool = True) -> JsonDict:
    """Read a folder artifact's manifest and check it as `read_hashed_manifest` does."""
    return read_hashed_manifest(folder, artifact, hash_files)[0]


def read_hashed_manifest(folder: str | Path, artifact: str, hash_files: bool = True) -> tuple[JsonDict, str]:
    """Read a folder artifact's manifest and check its shape, its digest and every file's hash.

    Args:
        folder: Folder of the artifact.
        artifact: The artifact's name in `ARTIFACTS`.
        hash_files: Whether to read every file for its hash; what this pod has checked before, or checks as it reads,
            goes without.

    Returns:
        The manifest, and the SHA-256 of its file.

    Raises:
        ContractError: If the manifest is missing (the writer did not finish), of another artifact, schema or shape, or
            if it or a file is missing or was changed after it was written.
    """
    root = Path(folder)
    path = root / ARTIFACTS[artifact].manifest
    if not root.is_dir():
        raise ContractError(f"{artifact} folder {root} {'is no folder' if root.exists() else 'does not exist'}")
    if not path.is_file():
        raise ContractError(f"{artifact} folder {root} has no {path.name}: it was never finished, or is something else")
    manifest, sha256 = read_hashed_document(path, artifact)
    if manifest["digest"] != _digest(manifest):
        raise ContractError(
            f"{path} was changed after it was written: its digest is not that of its content; "
            "take the folder again from where it was made"
        )
    check_files(root, manifest["files"], artifact, hash_files)
    return manifest, sha256


def read_document(path: str | Path, artifact: str) -> JsonDict:
    """Read a JSON artifact and check its shape.

    Raises:
        ContractError: If it cannot be read, or is of another artifact, schema or shape.
    """
    return read_hashed_document(path, artifact)[0]


def read_hashed_document(path: str | Path, artifact: str) -> tuple[JsonDict, str]:
    """Read a JSON artifact as `read_document` does, and give the SHA-256 of its file with it."""
    document, sha256 = read_hashed_json(path)
    check_document(document, artifact, path)
    return document, sha256


def check_document(document: JsonDict, artifact: str, where: object) -> None:
    """Refuse a document of another artifact, schema version or shape.

    Raises:
        ContractError: Naming `where`, the key, the rule and the value.
    """
    from natix_lib.documents import check_shape  # here, because decisions needs numpy and scipy only

    if document.get("artifact") != artifact:
        raise ContractError(f"{where} must be a {artifact} document, got {reprlib.repr(document.get('artifact'))}")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise ContractError(
            f"{where} has schema_version {reprlib.repr(document.get('schema_version'))}, "
            f"this natix reads {SCHEMA_VERSION}"
        )
    check_shape(document, artifact, where)


def _digest(manifest: JsonDict) -> str:
    """SHA-256 of a manifest without its digest, so that a manifest that was edited is told like a file that was.

    Like the hashes of files it shows that nothing was changed by accident or by a careless hand, and not who wrote
    it: a signature would, and needs a key to be kept. What was evaluated is told by `bundle_sha256` in evaluation.json.
    """
    return sha256_bytes(canonical_json({key: value for key, value in manifest.items() if key != "digest"}))


def require_same(what: str, expected: Any, expected_from: str, actual: Any, actual_from: str) -> None:
    """Refuse two artifacts that name a common ancestor differently.

    Raises:
        ContractError: Naming both sides.
    """
    if expected != actual:
        raise ContractError(f"{what} differs: {expected_from} has {expected!r}, {actual_from} has {actual!r}")
