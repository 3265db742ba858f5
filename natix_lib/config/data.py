"""The config section `data`: where the images are, what their tables call things, and how they are fed."""

import os
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationInfo, field_validator, model_validator

from natix_lib.config.key import Fraction, default
from natix_lib.config.section import Section
from natix_lib.cpus import usable_cpus
from natix_lib.grammar import Place

MOST_WORKERS = 8  # processes that decode, where they are counted; a few keep one GPU busy
OWN_NAME = "choice: the key's own name"


class Dataloader(Section):
    """How images are fed to the backbone."""

    batch_size: PositiveInt = default(
        32,
        "Images in one batch of training and of computing features.",
        unit="images",
        source="choice: a forward pass of a ViT-L at 224 pixels fits into 16 GB",
    )
    num_workers: NonNegativeInt | None = default(
        None,
        f"Processes that decode images beside each one that trains; null counts the CPUs of its container, divided by "
        f"the training processes there, at most {MOST_WORKERS}; 0 decodes in the training process.",
        unit="processes",
        source="choice: a core each; one prepares about a thousand images a second, make bench-train",
    )

    @property
    def workers(self) -> int:
        """Decoding processes of this training process, counted here where the config does not say."""
        if self.num_workers is not None:
            return self.num_workers
        return min(MOST_WORKERS, max(1, usable_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


class Columns(Section):
    """Names of the columns of a manifest or Parquet file; an optional one that is absent, or named "", is not used."""

    image: str = default("image", "Column with the file name or, in Parquet, the bytes of an image.", source=OWN_NAME)
    label: str = default("label", "Column with the class of an image, a name or an integer.", source=OWN_NAME)
    group: str = default(
        "group", "Column with the drive or sequence of an image, which is never divided by the split.", source=OWN_NAME
    )
    source_id: str = default(
        "source_id",
        "Column with the original of an image, which stays in one role with all its copies.",
        source=OWN_NAME,
    )
    lat: str = default("lat", "Column with the latitude in degrees.", source=OWN_NAME)
    lon: str = default("lon", "Column with the longitude in degrees.", source=OWN_NAME)
    captured_at: str = default("captured_at", "Column with the time at which an image was taken.", source=OWN_NAME)
    split: str = default("split", "Column with the split role that the data's owner has given.", source=OWN_NAME)
    is_synthetic: str = default(
        "is_synthetic",
        "Column that says whether an image is synthetic; such images reach neither VAL_CALIB nor TEST.",
        source=OWN_NAME,
    )

    @model_validator(mode="after")
    def _check(self) -> "Columns":
        named = [name for name in self.model_dump().values() if name]
        repeated = sorted({name for name in named if named.count(name) > 1})
        if repeated:
            raise ValueError(f"data.columns must name each column once, got {repeated[0]!r} twice")
        for key in ("image", "label"):
            if not getattr(self, key):
                raise ValueError(f"data.columns.{key} must name a column, got ''")
        return self


class DataSource(Section):
    """What ingest reads."""

    data_root: Place = Field(
        description="Folder, or gs:// or s3:// prefix, that holds the images, or one zip or tar of it."
    )
    format: Literal["auto", "manifest", "parquet", "arrow", "webdataset", "folder"] = default(
        "auto",
        "Layout of the images: a table that lists them, Parquet files or Arrow files of datasets' save_to_disk that "
        "hold them, tar shards of WebDataset, or a folder for each class; auto looks, and refuses a layout that can be "
        "read in two ways.",
        source="choice: what is there decides",
    )
    manifest: str = default(
        "",
        'Table that lists the images, a file below data_root; "" finds manifest.csv and its like, metadata.csv, or the '
        "table beside the images, of which there may be one for each split role.",
        source="choice: what is there decides",
    )
    columns: Columns = Columns()
    class_names: list[str] = default(
        [],
        "Names of the classes, in the order of integer labels; [] takes the labels found, sorted.",
        source="choice: what is there decides",
    )
    class_aliases: dict[str, str] = default(
        {},
        "Other spellings of classes, each with the class that it is: {roadwork: Roadwork}.",
        source="choice: two spellings are one class only where a person says so",
    )
    positive_classes: list[str] = default(
        [],
        "Classes whose probabilities add up to the binary score; [] takes the last of two classes, and of more none.",
        source="convention: of two sorted classes the last one is the positive one, as in scikit-learn",
    )
    unlabelled: Literal["fail", "drop", "adapt"] = default(
        "fail",
        "What happens to rows without a label: fail refuses the data, drop leaves them out and says how many, adapt "
        "keeps those for adapt that share no group with VAL_SELECT, VAL_CALIB or TEST; it needs "
        "model.init_from_explora.",
        source="choice: images are not lost in silence",
    )
    contradictions: dict[str, dict[str, list[Annotated[str, Field(min_length=1)]]]] = default(
        {},
        "Words that contradict a class, by class and column: {None: {scene_description: [construction, traffic cone]}} "
        "looks for them in the column scene_description of images of class None, in any case; data.contradicting says "
        "what follows.",
        source="choice: which words contradict a class is known to whoever wrote the texts",
    )
    contradicting: Literal["keep", "drop"] = default(
        "keep",
        "What happens to images that data.contradictions finds: keep shows them in data.html, drop leaves them out.",
        source="choice: a text can be wrong as well as a label",
    )
    resize_shorter_side: PositiveInt = default(
        256,
        "Length to which the shorter side of an image is reduced when it is read.",
        unit="pixels",
        source="convention: the evaluation of a ViT at 224 pixels resizes to 256, as DINOv2 and DINOv3 do",
    )
    max_reject_fraction: Fraction = default(
        0.01,
        "Share of images that may be undecodable; more of them are an error.",
        unit="share of images",
        source="choice: one broken file does not stop a run, a broken export does",
    )
    max_pixels: PositiveInt = default(
        178_956_970,
        "Largest image that is decoded.",
        unit="pixels",
        source="library: Pillow's limit against decompression bombs, twice its MAX_IMAGE_PIXELS",
    )

    @field_validator("data_root")
    @classmethod
    def _check_root(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("data.data_root must name a folder or a bucket's prefix, got an empty text")
        return value

    @field_validator("class_names", "positive_classes")
    @classmethod
    def _check_names(cls, names: list[str], info: ValidationInfo) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError(f"data.{info.field_name} must not repeat a class, got {names}")
        return names

    @model_validator(mode="after")
    def _check(self) -> "DataSource":
        unknown = sorted(set(self.positive_classes) - set(self.class_names))
        if self.class_names and unknown:
            raise ValueError(f"data.positive_classes must be among data.class_names, got {unknown}")
        return self


class Data(DataSource):
    """Where the images are and how they are fed."""

    shards: Annotated[int, Field(ge=1, le=90)] = default(
        1,
        "Shards that the images are ingested in, each by a task of its own; the result is the same for any number. It "
        "shapes the pipeline's graph, so it is compiled in and no parameter of a run.",
        unit="shards",
        source="choice: one pod is enough for some ten thousand images; Vertex gives a task at most 100 artifacts",
    )
    dataloader: Dataloader = Dataloader()
