"""The shape of every JSON document that one step writes and another reads: keys, types, ranges.

A document lies on a disk or in a bucket between two steps, so nothing in it is used before all of it was checked; a
mistake is one line that names the file, the key, the rule and the value. What two documents must agree on is checked
where both are at hand (`bundle/contents.py`, `steps/export.py`); here a document stands alone.

Types are strict: text is no number, and true is no 1. A key that nobody reads is passed over, so that a document may
say more than this version knows, but not in bundle.json: there a key that this version does not know would mean that
the bundle wants to be run otherwise. Reading documents into these classes and passing the objects around was left
out: the readers use a few keys each, and the documents are also shown whole in reports.
"""

import reprlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from natix_lib.errors import ContractError

# Above any difference between two runtimes that compute the same in float32 (1e-6 to 1e-4), below one that moves a
# probability by more than half a percent: two logits that are .01 off move it by at most .02 / 4.
MAX_TOLERANCE = 1e-2
PIXEL_DIGITS = 16  # of a pixel hash, by which an image is known again: two of a million agree once in 30 million sets
SHOWN_MISTAKES = 3  # of one document; more make the line unreadable


def _relative_name(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or str(path) != name or "\\" in name or not name.isprintable() or {".", ".."} & {*path.parts}:
        raise ValueError("must be the relative name of a file inside the folder")
    return name


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError("must not name one twice")
    return names


def _poolings(names: list[str]) -> list[str]:
    if not names or len(set(names)) != len(names) or ("attentive" in names and len(names) > 1):
        raise ValueError("must name poolings, each once, or attentive alone")
    return names


HeadType = Literal["linear", "mlp"]  # built by natix_lib/training/heads.py
Pooling = Literal["cls", "mean", "max", "std", "attentive"]  # by natix_lib/backbones/pooling.py
Poolings = Annotated[list[Pooling], AfterValidator(_poolings)]
CLS_AND_MEAN: tuple[Pooling, ...] = ("cls", "mean")
Name = Annotated[str, Field(min_length=1)]
FileName = Annotated[Name, AfterValidator(_relative_name)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Role = Literal["TRAIN", "VAL_SELECT", "VAL_CALIB", "TEST"]
SetName = Literal["TRAIN", "VAL_SELECT", "VAL_CALIB", "TEST", "UNLABELLED"]
ClassNames = Annotated[list[Name], Field(min_length=2), AfterValidator(_distinct)]
Names = Annotated[list[Name], AfterValidator(_distinct)]
Channels = Annotated[list[float], Field(min_length=3, max_length=3)]
Quantiles = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=3, max_length=3)]
Deviations = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]


class Document(BaseModel):
    """A JSON object of known shape."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Closed(Document):
    """A JSON object that holds nothing else."""

    model_config = ConfigDict(extra="forbid")


class Artifact(Document):
    """What every artifact's document says of itself."""

    artifact: str
    schema_version: int


class File(Closed):
    """A file of a folder, when its manifest was written."""

    sha256: Sha256
    bytes: Count


class Manifest(Artifact):
    """What every manifest of a folder says."""

    files: Annotated[dict[FileName, File], Field(min_length=1)]
    digest: Sha256


class WithClasses(Document):
    """Class names in order of the logits' columns, and which of them are positive."""

    class_names: ClassNames
    positive_classes: Names

    @model_validator(mode="after")
    def _positive_are_classes(self) -> "WithClasses":
        unknown = [name for name in self.positive_classes if name not in self.class_names]
        if unknown:
            raise ValueError(f"positive_classes must be among class_names, got {reprlib.repr(unknown[0])}")
        return self


class Licence(Closed):
    """Under which licence the weights are, and the files that say so."""

    name: str
    note: str
    files: Annotated[list[FileName], AfterValidator(_distinct)]


class TransformDocument(Closed):
    """The evaluation transform; its name and version are judged by `Transform.from_document`."""

    name: str
    version: int
    image_size: Positive
    resize_shorter_side: Positive
    multiview: bool
    image_mean: Channels
    image_std: Deviations


class Images(Manifest):
    """images.json."""

    rows: Count
    index_sha256: Sha256


class Reject(Document):
    """An image that cannot be used, why, and what can be seen of it as a data URI; "" where nothing can."""

    id: str
    reason: str
    src: str


class Contradicted(Document):
    """An image whose text contradicts its label: the column, the word that was found, and the text around it."""

    id: str
    column: str
    word: str
    text: str


class Contradicting(Document):
    """Images whose text contradicts their label: how many there are, and the first of them."""

    count: Count
    examples: list[Contradicted]


class Index(Artifact, WithClasses):
    """What the metadata of the index says of all images."""

    rows: Count
    rejected: Count
    warnings: list[str]
    tag_names: Names
    fingerprint: Name
    content_fingerprint: Name
    resize_shorter_side: Positive
    rejects: list[Reject]
    contradicting: Contradicting
    parts: list[Sha256] = []  # of a sharded ingest: the SHA-256 of each shard's part, in the order of the rows


class Rejected(Closed):
    """An image that cannot be used, and why."""

    id: Name
    reason: str


class Part(Artifact, WithClasses):
    """What the metadata of a shard's part says: of its own images, and what every shard must say alike."""

    rows: Count
    shard: Positive
    shards: Positive
    rejects: list[Rejected]
    shown: list[Reject]
    contradicting: Contradicting
    listed: Count
    listing_sha256: Sha256
    warnings: list[str]
    tag_names: Names
    resize_shorter_side: Positive


class Ingested(Document):
    """What the test set keeps of the index, for the report."""

    rows: Count
    rejected: Count
    warnings: list[str]


class RoleSet(Manifest, WithClasses):
    """set.json, of the images of one split role or of those without a label."""

    role: SetName
    tag_names: Names
    rows: Count
    resize_shorter_side: Positive
    dataset_fingerprint: Name
    splits_sha256: Sha256
    ingested: Ingested | None = None

    @model_validator(mode="after")
    def _check(self) -> "RoleSet":
        if self.role == "TEST" and self.ingested is None:
            raise ValueError("the set of TEST must have the key ingested")
        if not self.rows and self.role != "UNLABELLED":
            raise ValueError(f"rows must be at least 1, got {self.rows}")
        return self


def held_name(role: str) -> str:
    """What the pixels of splits.json call images that are left out and whose group has a role."""
    return f"held {role}"


class Trained(Closed):
    """Images that a model was fitted on, or was chosen by: `pixels` and `looks` as in splits.json, of all in one."""

    splits_sha256: Sha256
    pixels: Annotated[str, Field(pattern="^[0-9a-f]*$")]
    looks: Annotated[str, Field(pattern="^[0-9a-f]*$")]  # "" where the bundle has none


class Splits(Artifact):
    """splits.json."""

    dataset_fingerprint: Name
    warnings: list[str]
    class_names: ClassNames
    roles: dict[Role, Names]
    unlabelled: Names = []  # for adapt alone; none in bundles of natix before it had them
    groups: dict[str, str]
    left_out: dict[str, str] = {}
    held: dict[Role, Names] = {}  # of left_out, by the role of their groups
    pixels: dict[str, Annotated[str, Field(pattern="^[0-9a-f]*$")]] = {}  # none in bundles of natix before it had them
    looks: dict[str, Annotated[str, Field(pattern="^[0-9a-f]*$")]] = {}  # nor these
    trained: Trained | None = None  # of a renewed bundle, whose model was fitted on images of an earlier division

    @model_validator(mode="after")
    def _pixels_are_of_the_images(self) -> "Splits":
        held = [(held_name(role), names) for role, names in self.held.items()]
        for key, digits in (("pixels", self.pixels), ("looks", self.looks)):
            for role, names in [*self.roles.items(), ("UNLABELLED", self.unlabelled), *held] if digits else ():
                if len(digits.get(role, "")) != PIXEL_DIGITS * len(names):
                    raise ValueError(f"{key} must have {PIXEL_DIGITS} digits for each image of {role}")
        return self


class Backbone(Manifest):
    """backbone.json, of fetch and of adapt."""

    source: str
    hidden_size: Positive
    patch_size: Positive
    licence: Licence
    weights_sha256: Sha256
    image_mean: Channels
    image_std: Deviations


class Head(Document):
    """The head of a classifier."""

    type: HeadType
    dropout: Share
    pooling: Poolings = list(CLS_AND_MEAN)  # of classifiers of natix before it had others; patches has its own


class Origin(Document):
    """What a classifier was made from."""

    dataset_fingerprint: Name
    splits_sha256: Sha256
    backbone_sha256: Sha256


class Fitted(Closed):
    """The images that something was fitted on."""

    role: Role
    images: Positive


class Prior(Closed):
    """How class weights were taken back: `shift` is what was added to the logits of each class."""

    class_weights: list[Annotated[float, Field(gt=0)]]
    strength: float
    fitted_on: Fitted | None
    shift: list[float]
    status: Literal["fitted", "analytic"]
    reason: str
    sentence: Name


class Classifier(Manifest, WithClasses):
    """classifier.json."""

    model_sha256: Sha256
    dtype: Literal["float32"]
    transform: TransformDocument
    head: Head
    licence: Licence
    backbone_source: str
    provenance: Origin
    prior: Prior | None = None  # None where no class weighed more than another


class Decision(Document):
    """The cut of the binary score."""

    cut_logodds: float


class SliceName(Document):
    """The images whose tag has a value."""

    tag: str
    value: str


class Promise(Document):
    """One of several promises."""

    kind: Literal["overall", "misses", "false_alarms", "class", "slice"]
    of_class: str | None
    of_slice: SliceName | None = None
    alpha: Share
    certified: bool
    reason: str


class Guarantee(Document):
    """What a policy promises of the images it accepts."""

    certified: bool
    alpha: Share
    delta: Share
    reason: str = ""
    promises: list[Promise] = []  # where more than one was asked for


class PolicyOrigin(Document):
    """What a policy was fitted on; null where logits without provenance were used."""

    model_sha256: str | None = None
    splits_sha256: str | None = None
    logits_sha256: str | None = None
    dataset_fingerprint: str | None = None


class PolicyDocument(Artifact, WithClasses):
    """What both policies say; the words in them are judged by `Policy.from_document`."""

    method: str
    decision: Decision | None
    provenance: PolicyOrigin = PolicyOrigin()


class Thresholds(PolicyDocument):
    """thresholds.json."""

    score: str
    comparator: str
    threshold_logodds: float | None


class Accept(Document):
    """The accept rule of scrcparams.json."""

    score: str
    score_temperature: int
    comparator: str
    mode: str
    threshold: float | None
    class_thresholds: dict[str, float] | None = None  # of a rule with a threshold for each predicted class
    bias: dict[str, float] | None = None  # of each class, added to its logits before all else


class Sets(Document):
    """The prediction sets of scrcparams.json: the largest 1 - probability of a class in them."""

    score: str
    threshold: Share


class ScrcParams(PolicyDocument):
    """scrcparams.json."""

    temperature: Annotated[float, Field(gt=0)]
    accept: Accept
    sets: Sets | None
    guarantee: Guarantee | None = None


class BundlePolicy(Closed):
    """Which policy a bundle ships."""

    step: Literal["sweep", "calibrate"]
    file: FileName
    sha256: Sha256
    certified: bool


class BundleModel(Closed):
    """The model of a bundle: `sha256` is of model.safetensors, the weights that the ONNX file was made from."""

    sha256: Sha256
    onnx: Literal["model.onnx"]
    dtype: Literal["float32"]


class Parity(Closed):
    """How far the ONNX file was from torch, and how far a runtime may be from the golden logits."""

    golden: Annotated[float, Field(ge=0)]
    val_calib: Annotated[float, Field(ge=0)]
    images: Positive
    tolerance: Annotated[float, Field(gt=0, le=MAX_TOLERANCE)]

    @model_validator(mode="after")
    def _within_tolerance(self) -> "Parity":
        if max(self.golden, self.val_calib) > self.tolerance:
            raise ValueError(
                f"golden {self.golden:g} and val_calib {self.val_calib:g} must not exceed tolerance {self.tolerance:g}"
            )
        return self


class BundleOrigin(Closed):
    """What a bundle was made from."""

    dataset_fingerprint: Sha256
    splits_sha256: Sha256
    backbone_sha256: Sha256
    model_sha256: Sha256
    logits_sha256: Sha256
    prior: Name | None = None  # how class weights were taken back, for a person
    renewed_from: Sha256 | None = None  # bundle_sha256 of the bundle whose policy was renewed


class Bundle(Manifest, WithClasses):
    """bundle.json."""

    model_config = ConfigDict(extra="forbid")

    transform: TransformDocument
    policy: BundlePolicy
    model: BundleModel
    parity: Parity
    licence: Licence
    backbone_source: str
    provenance: BundleOrigin
    grid: list[dict[str, bool | int | float | str]] | None = None  # heads that were tried, as classifier.json has them


class Golden(Closed):
    """golden/golden.json: the logits of each image, and the weights and the transform that gave them."""

    images: Annotated[list[FileName], Field(min_length=1), AfterValidator(_distinct)]
    logits: list[list[float]]
    model_sha256: Sha256
    transform: TransformDocument


class Looks(Closed):
    """How images of VAL_CALIB look: the quantiles of `bundle/appearance.py`."""

    images: Positive
    brightness: Quantiles
    pixels: Quantiles
    sharpness: Quantiles


class DriftReference(Closed):
    """drift.json: what images that are scored are compared with, of `decisions/drift.py`."""

    model_sha256: Sha256
    logits_sha256: Sha256
    unit: Literal["image", "group"]
    images: Positive
    width: Annotated[float, Field(gt=0)]
    first_level: int
    counts: Annotated[list[Count], Field(min_length=1)]
    classes: Annotated[list[Count], Field(min_length=2)]
    looks: Looks

    @model_validator(mode="after")
    def _counts_are_of_the_images(self) -> "DriftReference":
        if not sum(self.counts) == sum(self.classes) == self.images:
            raise ValueError(f"counts and classes must sum to images, {self.images}")
        return self


class Evaluation(Artifact):
    """evaluation.json, as the pipeline's page shows it."""

    class_names: ClassNames
    confusion: list[list[Count]]
    roc: list[dict[str, float]]


MODELS: dict[str, type[Document]] = {
    "images": Images,
    "index": Index,
    "part": Part,
    "train_set": RoleSet,
    "val_select_set": RoleSet,
    "val_calib_set": RoleSet,
    "test_set": RoleSet,
    "unlabelled_set": RoleSet,
    "splits": Splits,
    "backbone": Backbone,
    "classifier": Classifier,
    "thresholds": Thresholds,
    "scrcparams": ScrcParams,
    "bundle": Bundle,
    "golden": Golden,
    "drift": DriftReference,
    "evaluation": Evaluation,
}


def check_shape(document: Mapping[str, Any], artifact: str, where: object) -> None:
    """Refuse a document that has not the shape of its artifact.

    Args:
        document: The document as JSON gives it.
        artifact: Name of the artifact, one of `MODELS`.
        where: Path of the document, for the message.

    Raises:
        ContractError: Naming the first mistakes as `key must ..., got value`.
    """
    try:
        MODELS[artifact].model_validate(document)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        more = f" (and {len(mistakes) - SHOWN_MISTAKES} more)" if len(mistakes) > SHOWN_MISTAKES else ""
        shown = "; ".join(_explain(mistake) for mistake in mistakes[:SHOWN_MISTAKES])
        raise ContractError(f"{where}: {shown}{more}") from error


def _explain(mistake: Any) -> str:
    """One mistake in one clause; keys and values are somebody's text, so they are short and printable."""
    parts = [part for part in mistake["loc"] if part != "[key]"]
    key = ".".join(
        str(part) if str(part).isprintable() and len(str(part)) < 80 else reprlib.repr(part) for part in parts
    )
    if mistake["type"] == "missing":
        return f"{key} is missing"
    if mistake["type"] == "extra_forbidden":
        return f"{key} is not a known key"
    rule = mistake["msg"].removeprefix("Value error, ").replace("Input should", "must")
    rule = rule[0].lower() + rule[1:]
    if not key:  # of the whole document: the rule names the keys and the value
        return str(rule)
    return f"{key} {rule}, got {reprlib.repr(mistake['input'])}"
