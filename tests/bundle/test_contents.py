"""Every directed edit of a bundle is refused in one line, or changes no bit of a prediction."""

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from natix_lib.bundle.runtime import Bundle
from natix_lib.errors import BundleError, ContractError, NatixError
from natix_lib.files import read_json, sha256_file
from tests.damage import changed_bundle, edits, seal
from tests.small_run import Chain

REFUSED, SAME = "refused", "same"
SPARSE = 9  # the fast suite takes every ninth edit


def some_fast(names: Iterable[str]) -> list[Any]:
    """All names, most of them for the slow suite."""
    return [pytest.param(name, marks=[pytest.mark.slow] * bool(i % SPARSE)) for i, name in enumerate(names)]


# Edits of bundle.json, digest made anew, that decide nothing, by the rule that makes them harmless.
HARMLESS = re.compile(
    r"backbone_source (other|empty|upper)|licence\.(name|note) (other|empty|upper)"  # text for people
    r"|licence\.files (empty)"  # which files people should read; those that lie there are hashed
    r"|parity\.images (larger)"  # how many images were compared at export
)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    generator = random.Random(0)
    return [Image.frombytes("RGB", (40 + i, 30), generator.randbytes(3 * 30 * (40 + i))) for i in range(3)]


@pytest.fixture(scope="module")
def expected(tiny_bundle: Path, pictures: list[Image.Image]) -> Any:
    return Bundle.load(tiny_bundle).predict(pictures)


def verdict(folder: Path, pictures: list[Image.Image], expected: Any) -> str:
    """Whether a bundle is refused in one line or predicts the same to the bit; anything else fails."""
    try:
        predictions = Bundle.load(folder).predict(pictures)
    except NatixError as error:
        assert "\n" not in str(error) and len(str(error)) < 900 and "Traceback" not in str(error)
        return REFUSED
    assert predictions == expected
    return SAME


def check_edits_of_bundle_json(
    step: int, tiny_bundle: Path, folder: Path, pictures: list[Image.Image], expected: Any
) -> int:
    copy = Path(shutil.copytree(tiny_bundle, folder))
    manifest = read_json(copy / "bundle.json")
    del manifest["digest"]
    chosen = list(edits(manifest))[::step]
    for name, edited in chosen:
        seal(copy, edited, keep_table=True)
        outcome = verdict(copy, pictures, expected)
        assert outcome == (SAME if HARMLESS.fullmatch(name) else REFUSED), name
    return len(chosen)


def test_an_edit_of_bundle_json_is_refused_or_changes_no_prediction(
    tiny_bundle: Path, tmp_path: Path, pictures: list[Image.Image], expected: Any
) -> None:
    assert check_edits_of_bundle_json(SPARSE, tiny_bundle, tmp_path / "b", pictures, expected) > 25


@pytest.mark.slow
def test_every_edit_of_bundle_json_is_refused_or_changes_no_prediction(
    tiny_bundle: Path, tmp_path: Path, pictures: list[Image.Image], expected: Any
) -> None:
    assert check_edits_of_bundle_json(1, tiny_bundle, tmp_path / "b", pictures, expected) > 250


def test_an_edit_by_hand_that_leaves_the_digest_is_refused_whatever_it_says(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    manifest = read_json(copy / "bundle.json")
    for name, edited in list(edits(manifest))[::SPARSE]:
        if not name.startswith("files"):
            (copy / "bundle.json").write_text(json.dumps(edited))
            with pytest.raises(ContractError, match=r"bundle.json"):
                Bundle.load(copy)


def rewrite(name: str, **values: Any) -> Callable[[Path], None]:
    """Other values in a JSON file of the folder."""

    def edit(folder: Path) -> None:
        (folder / name).write_text(json.dumps({**read_json(folder / name), **values}))

    return edit


def replace(name: str, content: bytes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return edit


def noisy(name: str) -> Callable[[Path], None]:
    """Some bytes of a file turned over."""

    def edit(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        for i in range(len(content) // 3, len(content), 997):
            content[i] ^= 0x55
        (folder / name).write_bytes(bytes(content))

    return edit


def swapped(first: str, second: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        one, other = (folder / first).read_bytes(), (folder / second).read_bytes()
        (folder / first).write_bytes(other)
        (folder / second).write_bytes(one)

    return edit


def linked(name: str, inside: bool) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        target = folder / ".kept" if inside else folder.parent / "outside"
        (folder / name).rename(target)
        (folder / name).symlink_to(target)

    return edit


def folder_in_place_of(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return edit


SWAPPED_NAMES = {"class_names": ["Roadwork", "None"]}
POLICY = "scrcparams.json"
FILES = (
    "LICENSE.md",
    "config.json",
    "golden/golden.json",
    "golden/large.jpg",
    "golden/tiny.png",
    "model.onnx",
    "model.onnx.data",
    "model.safetensors",
    POLICY,
    "splits.json",
)
# Edits of the files; afterwards the table of files and the digest are made anew, as a careful forger would.
FORGED: dict[str, Callable[[Path], None]] = {
    **{f"{name} removed": lambda folder, name=name: (folder / name).unlink() for name in FILES},  # type: ignore[misc]
    **{f"{name} empty": replace(name, b"") for name in FILES},
    **{f"{name} noisy": noisy(name) for name in FILES if name not in ("LICENSE.md", "golden/tiny.png")},
    **{f"{name} of NaN": replace(name, b'{"a": NaN}') for name in FILES if name.endswith(".json")},
    "class names of the policy swapped": rewrite(POLICY, **SWAPPED_NAMES),
    "class names of the splits swapped": rewrite("splits.json", **SWAPPED_NAMES),
    "positive classes of the policy": rewrite(POLICY, positive_classes=["None"]),
    "temperature": rewrite(POLICY, temperature=9.0),
    "accept none": rewrite(
        POLICY,
        accept={
            "score": "log_odds",
            "score_temperature": 1,
            "comparator": ">",
            "mode": "abstain_all",
            "threshold": None,
        },
    ),
    "splits of other data": rewrite("splits.json", dataset_fingerprint="0" * 64),
    "golden logits of other numbers": rewrite("golden/golden.json", logits=[[0.5, 0.1]] * 8),
    "golden logits of three classes": rewrite("golden/golden.json", logits=[[0.5, 0.1, 0.3]] * 8),
    "golden logits too few": rewrite("golden/golden.json", logits=[[0.5, 0.1]]),
    "golden logits as text": rewrite("golden/golden.json", logits=[["0.5", "0.1"]] * 8),
    "golden without images": rewrite("golden/golden.json", images=[], logits=[]),
    "golden image outside": rewrite("golden/golden.json", images=["../LICENSE.md"] * 8),
    "golden image not there": rewrite("golden/golden.json", images=["a.png"] * 8),
    "golden of another model": rewrite("golden/golden.json", model_sha256="0" * 64),
    "golden images exchanged": swapped("golden/wide.png", "golden/tall.png"),
    "model and weights exchanged": swapped("model.onnx", "model.onnx.data"),
    "model and safetensors exchanged": swapped("model.onnx", "model.safetensors"),
    "policy and splits exchanged": swapped(POLICY, "splits.json"),
    "a second policy": lambda folder: shutil.copy(folder / POLICY, folder / "thresholds.json"),  # type: ignore[dict-item,return-value]
    "a second policy as a folder": lambda folder: (folder / "thresholds.json").mkdir(),
    "a licence file more": replace("NOTICE.md", b"text"),
    ".DS_Store": replace(".DS_Store", b"text"),
}
FORGED_HARMLESS = {
    "LICENSE.md empty",  # text for people; LICENSE.md removed is refused, because licence.files names it
    "config.json empty",  # the backbone's config, for those who train on; the runtime does not read it
    "config.json noisy",
    "config.json of NaN",
    "a licence file more",  # it stands in the table
    ".DS_Store",
}
# Edits of the folder alone; bundle.json says what it said.
FOUND: dict[str, Callable[[Path], None]] = {
    **{f"{name} a link out of the folder": linked(name, inside=False) for name in FILES},
    **{f"{name} a folder": folder_in_place_of(name) for name in FILES},
    **{f"{name} removed": lambda folder, name=name: (folder / name).unlink() for name in FILES},  # type: ignore[misc]
    "bundle.json removed": lambda folder: (folder / "bundle.json").unlink(),
    "bundle.json a folder": folder_in_place_of("bundle.json"),
    "a second policy": replace("thresholds.json", b"{}"),
    "a stray file": replace("model.onnx.data.old", b"x"),
    "a stray golden image": replace("golden/more.png", b"x"),
    "a link to nowhere": lambda folder: (folder / "stray").symlink_to("nowhere"),
    ".DS_Store": replace(".DS_Store", b"x"),
    "hidden folder": replace(".cache/x", b"x"),
    "Thumbs.db": replace("golden/Thumbs.db", b"x"),
    "an empty folder": lambda folder: (folder / "lost+found").mkdir(),
    "a link inside the folder": linked("model.onnx.data", inside=True),
}
FOUND_HARMLESS = {".DS_Store", "hidden folder", "Thumbs.db", "an empty folder", "a link inside the folder"}


@pytest.mark.parametrize("name", some_fast(FORGED))
def test_a_file_exchanged_with_its_hash_is_refused_or_changes_no_prediction(
    tiny_bundle: Path, tmp_path: Path, pictures: list[Image.Image], expected: Any, name: str
) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    FORGED[name](copy)
    seal(copy, read_json(copy / "bundle.json"))
    assert verdict(copy, pictures, expected) == (SAME if name in FORGED_HARMLESS else REFUSED)


@pytest.mark.parametrize("name", some_fast(FOUND))
def test_a_folder_that_bundle_json_does_not_describe_is_refused(
    tiny_bundle: Path, tmp_path: Path, pictures: list[Image.Image], expected: Any, name: str
) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    FOUND[name](copy)
    assert verdict(copy, pictures, expected) == (SAME if name in FOUND_HARMLESS else REFUSED)


@pytest.mark.parametrize(
    "policy",
    [
        {"file": "thresholds.json"},
        {"file": "splits.json"},
        {"file": "../scrcparams.json"},
        {"file": "golden/../scrcparams.json"},
        {"file": "./scrcparams.json"},
        {"file": "/etc/hostname"},
        {"file": "golden"},
        {"file": "scrcparams.json\0"},
        {"step": "sweep"},
        {"step": "sweep", "file": "thresholds.json"},
        {"sha256": "0" * 64},
        {"certified": True},
    ],
    ids=str,
)
def test_the_policy_is_the_one_file_of_its_step(tiny_bundle: Path, tmp_path: Path, policy: dict[str, object]) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    shutil.copy(copy / POLICY, tmp_path / POLICY)
    manifest = read_json(copy / "bundle.json")
    seal(copy, {**manifest, "policy": {**manifest["policy"], **policy}})
    with pytest.raises(
        ContractError, match=r"bundle.json: policy.file |policy.(sha256|certified) differs|files must name thresholds"
    ):
        Bundle.load(copy)


@pytest.mark.parametrize("name", ["/etc/hostname", "../b/splits.json", "a//b", "./a", "a\\b", "a\0b", "", "golden"])
def test_a_table_of_files_names_files_inside_the_folder(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    manifest = read_json(copy / "bundle.json")
    record = {"bytes": (copy / "splits.json").stat().st_size, "sha256": sha256_file(copy / "splits.json")}
    seal(copy, {**manifest, "files": {**manifest["files"], name: record}}, keep_table=True)
    with pytest.raises(ContractError, match=r"bundle.json: files|lacks the file golden"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    "key", ["artifact", "class_names", "files", "parity", "policy", "positive_classes", "transform"]
)
def test_a_key_that_stands_twice_is_refused(tiny_bundle: Path, tmp_path: Path, key: str) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    manifest = read_json(copy / "bundle.json")
    text = (copy / "bundle.json").read_text().rstrip().removesuffix("}")
    (copy / "bundle.json").write_text(f"{text}, {json.dumps(key)}: {json.dumps(manifest[key])}}}")
    with pytest.raises(ContractError, match=f"names '{key}' twice"):
        Bundle.load(copy)


def test_swapped_class_names_are_refused_by_what_the_other_files_say(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    seal(copy, {**read_json(copy / "bundle.json"), **SWAPPED_NAMES})
    with pytest.raises(ContractError, match=r"class_names differs: bundle.json has .*, scrcparams.json has"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    ("part", "key", "message"),
    [
        ("policy", "sha256", "policy.sha256 differs: bundle.json has '0+', scrcparams.json"),
        ("model", "sha256", "model.sha256 differs: bundle.json has '0+', model.safetensors"),
        ("provenance", "model_sha256", "model_sha256 differs: bundle.json has '0+', model.safetensors"),
        ("provenance", "splits_sha256", "splits_sha256 differs: bundle.json has '0+', splits.json"),
        ("provenance", "logits_sha256", "logits_sha256 differs: bundle.json has '0+', scrcparams.json"),
        ("provenance", "dataset_fingerprint", "dataset_fingerprint differs: bundle.json has '0+', scrcparams.json"),
    ],
)
def test_every_hash_in_bundle_json_is_compared_with_what_it_is_of(
    tiny_bundle: Path, tmp_path: Path, part: str, key: str, message: str
) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    manifest = read_json(copy / "bundle.json")
    seal(copy, {**manifest, part: {**manifest[part], key: "0" * 64}})
    with pytest.raises(ContractError, match=message):
        Bundle.load(copy)


def test_class_names_are_those_of_the_splits(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    rewrite("splits.json", **SWAPPED_NAMES)(copy)
    manifest = read_json(copy / "bundle.json")
    manifest["provenance"]["splits_sha256"] = sha256_file(copy / "splits.json")
    seal(copy, manifest)
    with pytest.raises(ContractError, match=r"class_names differs: bundle.json has .*, splits.json has"):
        Bundle.load(copy)


@pytest.mark.parametrize("tolerance", [0, -1e-3, 1e-1, 1e9, float("nan"), float("inf"), "0.001", True, None])
def test_the_golden_check_cannot_be_switched_off(tiny_bundle: Path, tmp_path: Path, tolerance: object) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    manifest = read_json(copy / "bundle.json")
    seal(copy, {**manifest, "parity": {**manifest["parity"], "tolerance": tolerance}})
    with pytest.raises(ContractError, match=r"bundle.json: parity.tolerance must be|is no JSON number"):
        Bundle.load(copy)


def test_the_other_policy_of_the_same_model_cannot_be_put_in_its_place(chain: Chain, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(chain.paths["bundle"], tmp_path / "b"))
    (copy / POLICY).unlink()
    shutil.copy(chain.paths["thresholds"], copy)
    seal(copy, read_json(copy / "bundle.json"))
    with pytest.raises(ContractError, match=r"files must name scrcparams.json"):
        Bundle.load(copy)


def flips(count: int, tiny_bundle: Path, folder: Path, pictures: list[Image.Image], expected: Any) -> dict[str, int]:
    """Turn one bit of a bundle at a time, every file as often as another; gives the verdicts' counts."""
    copy = Path(shutil.copytree(tiny_bundle, folder))
    names = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
    generator, counts = random.Random(7), {REFUSED: 0, SAME: 0}
    for i in range(count):
        path = copy / names[i % len(names)]
        before = path.read_bytes()
        after = bytearray(before)
        after[generator.randrange(len(after))] ^= 1 << generator.randrange(8)
        path.write_bytes(bytes(after))
        outcome = verdict(copy, pictures, expected)
        assert outcome == REFUSED or path.name == "bundle.json", path.name
        counts[outcome] += 1
        path.write_bytes(before)
    return counts


def test_one_bit_turned_anywhere_changes_no_prediction(
    tiny_bundle: Path, tmp_path: Path, pictures: list[Image.Image], expected: Any
) -> None:
    assert flips(32, tiny_bundle, tmp_path / "b", pictures, expected)[REFUSED] > 29


@pytest.mark.slow
def test_700_bits_turned_one_by_one_change_no_prediction(
    tiny_bundle: Path, tmp_path: Path, pictures: list[Image.Image], expected: Any
) -> None:
    assert flips(700, tiny_bundle, tmp_path / "b", pictures, expected)[REFUSED] > 690


def damaged(tiny_bundle: Path, folder: Path) -> dict[str, Path]:
    """A few damaged bundles of every kind, for the command line."""
    made = {}
    for number, name in enumerate(("model.onnx empty", "golden/golden.json of NaN", "a second policy", "temperature")):
        copy = Path(shutil.copytree(tiny_bundle, folder / f"b{number}"))
        FORGED[name](copy)
        seal(copy, read_json(copy / "bundle.json"))
        made[name] = copy
    made["golden"] = changed_bundle(tiny_bundle, folder / "g", "golden/golden.json", logits=[[0.5, 0.1]] * 8)
    (folder / "text").mkdir()
    (folder / "text" / "bundle.json").write_bytes(b"[" * 100_000)
    return {**made, "text": folder / "text", "nothing": folder / "nothing"}


@pytest.mark.slow
@pytest.mark.parametrize("command", [("predict",), ("serve", "--port", "0")], ids=lambda command: command[0])
def test_the_command_line_refuses_a_damaged_bundle_in_one_line(
    tiny_bundle: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    images = [str(tmp_path / "a.png")] if command[0] == "predict" else []
    for name, folder in damaged(tiny_bundle, tmp_path).items():
        arguments = [sys.executable, "-m", "natix_lib.cli", *command, "--bundle", str(folder), *images]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
        assert (done.returncode, done.stdout) == (2, ""), name
        assert re.fullmatch(r"error: [^\n]+\n", done.stderr), (name, done.stderr)


def test_predict_runs_the_golden_check(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from natix_lib import cli

    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    altered = changed_bundle(tiny_bundle, tmp_path / "g", "golden/golden.json", logits=[[0.5, 0.1]] * 8)
    monkeypatch.setattr(sys, "argv", ["natix", "predict", "--bundle", str(altered), str(tmp_path / "a.png")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.out == ""
    assert re.fullmatch(r"error: bundle .*: golden images give logits that differ by .*\n", printed.err)


def test_a_golden_image_that_cannot_be_decoded_is_the_bundles_fault(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    (copy / "golden" / "tiny.png").write_bytes(b"no picture")
    seal(copy, read_json(copy / "bundle.json"))
    with pytest.raises(BundleError, match=r"bundle .*: golden images\[\d\] .*tiny.png: no image format is known"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits_sha256": "0" * 64}, r"logits_sha256 differs: bundle.json has .*, drift.json has '0000"),
        ({"images": 1, "counts": [1], "classes": [1, 0, 0]}, r"drift.json: classes must be 2, got 3"),
        ({"counts": [1]}, r"drift.json: counts and classes must sum to images"),
    ],
)
def test_a_reference_of_drift_that_belongs_elsewhere_is_refused(
    tiny_bundle: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        Bundle.load(changed_bundle(tiny_bundle, tmp_path / "b", "drift.json", **changes))
