"""Seconds that a recalibration takes beside reading, decoding and scoring its images: `natix recalibrate`'s own part.

10,000 new images against a bundle whose model was fitted on 60,000: the new images are known again or not and divided
(2,000, 5,000 and 3,000), the accept rule is calibrated on 5,000 with a start from 2,000, and the new bundle is written
and opened with all its checks. Hashes and logits are drawn; nothing of the time depends on what they show, but for
near-duplicates among the new images themselves, which are looked at and of which there are none here, and of 1,000
images of VAL_CALIB whose looks are measured for drift, here copies of one JPEG of 320 x 240.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from natix_lib import config
from natix_lib.bundle.contents import read_bundle
from natix_lib.contracts import SCHEMA_VERSION, SETS, VAL_CALIB, write_manifest
from natix_lib.data.arrow import ShardWriter, set_schema
from natix_lib.data.division import divide
from natix_lib.data.trained import Trained
from natix_lib.data.windows import WINDOWS
from natix_lib.files import canonical_json, sha256_file, write_json
from natix_lib.logits import write_labels, write_logits
from natix_lib.steps import calibrate, renew


def columns(n: int, generator: np.random.Generator) -> dict[str, list[Any]]:
    """The columns of an index of n images of no group, half of each class."""
    hashes = generator.integers(1, 2**63, (n, len(WINDOWS)), dtype=np.uint64).astype("<u8")
    absent = dict.fromkeys(("group", "source_id", "given_split", "lat", "lon", "captured_at"), [None] * n)
    return {
        **absent,
        "id": [f"{generator.integers(2**40):010x}-{row}.jpg" for row in range(n)],
        "label": [row % 2 for row in range(n)],
        "sha256": [generator.bytes(32).hex() for _ in range(n)],
        "hashes": [row.tobytes() for row in hashes],
        "is_synthetic": [False] * n,
    }


def write_set(folder: Path, names: list[str], positive: list[str], rows: int, splits_sha256: str) -> None:
    """A set of VAL_CALIB of one picture, 320 x 240, which the looks that drift is told by are measured on."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    ids = [f"{row:06}.jpg" for row in range(rows)]
    images = [{"bytes": buffer.getvalue(), "path": None}] * rows
    columns = {"id": ids, "image": images, "label": [row % 2 for row in range(rows)], "group": ids}
    folder.mkdir()
    schema = set_schema(names, [])
    writer = ShardWriter(folder, schema)
    for batch in pa.Table.from_pydict(columns, schema).to_batches():
        writer.add(batch)
    about = {"role": VAL_CALIB, "class_names": names, "positive_classes": positive, "tag_names": [], "rows": rows}
    origin = {"dataset_fingerprint": "0" * 64, "splits_sha256": splits_sha256}
    write_manifest(folder, SETS[VAL_CALIB], {**about, **origin, "resize_shorter_side": 256}, writer.close())


def main() -> None:
    """Print the seconds of each part and of all."""
    parser = argparse.ArgumentParser(description="What natix recalibrate costs beside reading and scoring images.")
    parser.add_argument("--bundle", type=Path, required=True, help="a bundle of two classes")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--trained", type=int, default=60_000)
    given = parser.parse_args()
    generator = np.random.default_rng(0)
    old = read_bundle(given.bundle)
    names, positive = old.manifest["class_names"], old.manifest["positive_classes"]
    fitted = Trained(
        old.manifest["provenance"]["splits_sha256"],
        [generator.bytes(8).hex() for _ in range(given.trained)],
        generator.integers(1, 2**63, given.trained, dtype=np.uint64),
    )
    index = columns(given.images, generator)
    ratios = config.Ratios.model_construct(train=0.0, val_select=0.2, val_calib=0.5, test=0.3)
    split = config.Split().model_copy(update={"ratios": ratios, "min_per_class": 0})
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        started = time.perf_counter()
        division = divide(index, names, split, None, None, fitted)
        body = {"dataset_fingerprint": "0" * 64, "artifact": "splits", "schema_version": SCHEMA_VERSION}
        write_json(folder / "splits", {**division.document(), **body})
        seconds["known again, divided"] = time.perf_counter() - started
        header = {
            "class_names": canonical_json(names).decode(),
            "positive_classes": canonical_json(positive).decode(),
            "model_sha256": old.manifest["model"]["sha256"],
            "dataset_fingerprint": "0" * 64,
            "ids_sha256": "",
        }
        header["splits_sha256"] = sha256_file(folder / "splits")
        paths: dict[str, str] = {}
        for role, share in (("VAL_SELECT", 0.2), ("VAL_CALIB", 0.5)):
            rows = int(share * given.images)
            labels = generator.integers(0, 2, rows)
            logits = generator.normal(0, 1.5, (rows, 2)).astype(np.float32)
            logits[np.arange(rows), labels] += 4
            for kind in ("logits", "labels"):
                paths[f"{role.lower()}_{kind}"] = str(folder / f"{role}-{kind}")
            write_logits(paths[f"{role.lower()}_logits"], logits, {**header, "role": role})
            write_labels(paths[f"{role.lower()}_labels"], labels, np.arange(rows), {**header, "role": role})
        write_set(folder / "val_calib_set", names, positive, rows, header["splits_sha256"])
        outputs = {name: str(folder / name) for name in ("scrcparams", "scrc_curve", "calibration_report")}
        started = time.perf_counter()
        calibrate.run({"scrc": {}}, **paths, **outputs)
        seconds["calibrated"] = time.perf_counter() - started
        started = time.perf_counter()
        renew.run(
            {},
            old_bundle=str(given.bundle),
            val_calib_set=str(folder / "val_calib_set"),
            splits=str(folder / "splits"),
            val_calib_logits=paths["val_calib_logits"],
            scrcparams=outputs["scrcparams"],
            bundle=str(folder / "bundle"),
        )
        seconds["new bundle"] = time.perf_counter() - started
    for name, value in {**seconds, "all": sum(seconds.values())}.items():
        print(f"{name:<24}{value:6.2f} s")


if __name__ == "__main__":
    main()
