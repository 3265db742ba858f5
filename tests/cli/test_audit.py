import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from natix_lib.bundle.runtime import Bundle
from natix_lib.cli.audit import promised_risk
from natix_lib.cli.predictions import Row, write_rows
from natix_lib.errors import ConfigError, NatixError
from tests.cli.test_cli import invoke


def labels(folder: Path, truth: list[str], groups: list[str] | None = None, names: list[str] | None = None) -> Path:
    path = folder / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", *(["group"] if groups else [])])
        for number, label in enumerate(truth):
            name = names[number] if names else f"{number:04d}.png"
            writer.writerow([name, label, *([groups[number]] if groups else [])])
    return path


def predicted(folder: Path, said: list[str], accepted: str = "true") -> Path:
    path = folder / "said.csv"
    rows = [f"{number:04d}.png,{label},{accepted}" for number, label in enumerate(said)]
    path.write_text("\n".join(["image,label,accepted", *rows]) + "\n")
    return path


def test_labels_that_contradict_what_was_published_break_the_promise_with_an_exit_code_of_its_own(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    truth = ["None", "Roadwork"] * 50
    good = invoke("audit", labels(tmp_path, truth), "--bundle", tiny_bundle, "--alpha", "0.1",
                 "--predictions", predicted(tmp_path, truth))  # fmt: skip
    assert good.exit_code == 0 and good.stdout.startswith("stands: 0 of 100 accepted images are wrong"), good
    wrong = ["Roadwork" if number % 3 else label for number, label in enumerate(truth)]
    bad = invoke("audit", labels(tmp_path, truth), "--bundle", tiny_bundle, "--alpha", "0.1",
                "--predictions", predicted(tmp_path, wrong))  # fmt: skip
    assert bad.exit_code == 3 and bad.stdout.startswith("broken: 33 of 100"), bad


def test_one_image_of_each_group_counts_and_what_was_not_accepted_counts_for_nothing(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    truth = ["None", "Roadwork"] * 10
    path = labels(tmp_path, truth, [f"g{number // 2 % 5}" for number in range(20)])
    said = predicted(tmp_path, truth)
    done = invoke("audit", path, "--bundle", tiny_bundle, "--alpha", "0.1", "--predictions", said)
    assert "0 of 5 accepted images, one of each group, are wrong" in done.stdout, done
    none = predicted(tmp_path, truth, accepted="false")
    done = invoke("audit", path, "--bundle", tiny_bundle, "--alpha", "0.1", "--predictions", none)
    assert done.exit_code == 0 and "0 of 0 accepted images" in done.stdout, done


def test_images_are_scored_through_the_bundle_where_no_predictions_are_given(tmp_path: Path, tiny_bundle: Path) -> None:
    names = [f"{number}.png" for number in range(4)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(60, 120, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    said = Bundle.load(tiny_bundle).predict([str(tmp_path / name) for name in names])
    path = labels(tmp_path, [each.label for each in said], names=names)
    done = invoke("audit", path, "--bundle", tiny_bundle, "--alpha", "0.1")
    assert f"0 of {sum(each.accepted for each in said)} accepted images are wrong" in done.stdout, done
    (tmp_path / names[3]).unlink()
    done = invoke("audit", path, "--bundle", tiny_bundle, "--alpha", "0.1")
    assert done.exit_code == 2 and "stands: 0 of" in done.stdout
    assert "1 of 4 images could not be read and count for nothing, first" in done.stderr and "3.png: no" in done.stderr


@pytest.mark.parametrize(
    ("truth", "names", "error"),
    [
        (["None"] * 15 + ["Roadwork"] * 15, None, "is sorted by its labels.*--shuffle"),
        (["Cone", "None"], None, "label 'Cone' is no class of the bundle"),
        (["None", "None"], ["a.png", "a.png"], "names a.png twice"),
        (["None"], ["other.png"], "says nothing of 1 of 1 images, first other.png"),
        ([], None, "lists no image"),
    ],
)
def test_tables_that_would_mislead_are_refused(
    tmp_path: Path, tiny_bundle: Path, truth: list[str], names: list[str] | None, error: str
) -> None:
    said = predicted(tmp_path, truth)
    path = labels(tmp_path, truth, names=names)
    done = invoke("audit", path, "--bundle", tiny_bundle, "--alpha", "0.1", "--predictions", said)
    assert isinstance(done.exception, NatixError) and re.search(error, str(done.exception)), done.exception


def audited(folder: Path, bundle: Path, said: Path, truth: list[str]) -> Result:
    return invoke("audit", labels(folder, truth), "--bundle", bundle, "--alpha", "0.1", "--predictions", said)


@pytest.mark.parametrize("written", ["true", "True", "TRUE"])
def test_a_truth_value_that_a_spreadsheet_has_capitalised_counts(
    tmp_path: Path, tiny_bundle: Path, written: str
) -> None:
    truth = ["None", "Roadwork"] * 50
    wrong = ["Roadwork" if number % 3 else label for number, label in enumerate(truth)]
    done = audited(tmp_path, tiny_bundle, predicted(tmp_path, wrong, written), truth)
    assert done.exit_code == 3 and done.stdout.startswith("broken: 33 of 100"), done


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_what_predict_writes_is_read_with_its_failures(tmp_path: Path, tiny_bundle: Path, ending: str) -> None:
    rows: list[Row] = [
        {"image": "0000.png", "label": "None", "probabilities": {"None": 0.9, "Roadwork": 0.1}, "accepted": True},
        {"image": "0001.png", "label": "None", "probabilities": {"None": 0.6, "Roadwork": 0.4}, "accepted": False},
        {"image": "0002.png", "error": "cannot be decoded"},
    ]
    said = tmp_path / f"said{ending}"
    write_rows(said, [*rows, rows[0]], ["None", "Roadwork"])  # predict was given the first image twice
    done = audited(tmp_path, tiny_bundle, said, ["None", "Roadwork", "None"])
    assert done.exit_code == 2 and done.stdout.startswith("stands: 0 of 1 accepted images are wrong"), done
    assert "1 of 3 images could not be read and count for nothing, first 0002.png: cannot be decoded" in done.stderr


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("image,label,accepted\na,None,yes", "said.csv row 2: accepted must be true or false, got 'yes'"),
        ("image,label,accepted\na,None,1", "said.csv row 2: accepted must be true or false, got '1'"),
        ("image,label,accepted\na,None,true\nb,None,", "said.csv row 3: accepted must be true or false, got ''"),
        ("image,label\na,None", "said.csv row 2: accepted must be true or false, got None"),
        ("image,label,accepted\na,Cone,true", "said.csv row 2: label 'Cone' is no class of the bundle, None, Roadwork"),
        ("image,label,accepted\na,,true", "said.csv row 2: label is empty"),
        ("image,label,accepted\n,None,true", "said.csv row 2: image is empty"),
        ("image,label,accepted,error\na,,true,gone", "said.csv row 2: accepted must be empty where error says"),
        ("image,label,accepted,accepted\na,None,true,false", "said.csv has the column 'accepted' twice"),
        (
            "image,label,accepted\na,None,true\na,None,false",
            "said.csv names a twice, and said.csv row 3 contradicts the first",
        ),
        ("image,label,accepted\na,None,true\na,Roadwork,true", "names a twice, and said.csv row 3 contradicts"),
    ],
)
def test_a_table_of_predictions_that_predict_would_not_write_is_refused(
    tmp_path: Path, tiny_bundle: Path, text: str, error: str
) -> None:
    said = tmp_path / "said.csv"
    said.write_text(text + "\n")
    done = audited(tmp_path, tiny_bundle, said, ["None"])
    assert isinstance(done.exception, NatixError) and error in str(done.exception), done


@pytest.mark.parametrize("accepted", ["false", "true", 1, None])
def test_json_lines_have_truth_values_and_no_words_for_them(tmp_path: Path, tiny_bundle: Path, accepted: Any) -> None:
    said = tmp_path / "said.jsonl"
    said.write_text(json.dumps({"image": "a", "label": "None", "accepted": accepted}) + "\n")
    done = audited(tmp_path, tiny_bundle, said, ["None"])
    assert isinstance(done.exception, NatixError), done
    assert str(done.exception) == f"said.jsonl row 1: accepted must be true or false, got {accepted!r}"


def test_shuffled_rows_of_a_sorted_table_are_taken(tmp_path: Path, tiny_bundle: Path) -> None:
    truth = ["None"] * 15 + ["Roadwork"] * 15
    given = ["--bundle", tiny_bundle, "--alpha", "0.1", "--predictions", predicted(tmp_path, truth)]
    done = invoke("audit", labels(tmp_path, truth), "--shuffle", *given)
    assert done.exit_code == 0 and "0 of 30" in done.stdout, done


def test_a_policy_that_promises_nothing_has_nothing_to_audit(tmp_path: Path) -> None:

    policy = {"method": "temperature_scaling", "positive_classes": []}
    with pytest.raises(ConfigError, match="promises no error rate of what it accepts.*give --alpha"):
        promised_risk({**policy, "guarantee": {"certified": False, "alpha": 0.1, "delta": 0.1, "reason": "few"}})
    promises = [{"kind": "misses", "certified": True, "alpha": 0.3, "of_class": None},
                {"kind": "overall", "certified": True, "alpha": 0.1, "of_class": None}]  # fmt: skip
    assert promised_risk({**policy, "guarantee": {"certified": True, "alpha": 0.1, "promises": promises}}) == 0.1
