"""A recalibration under KFP's local runner, as `natix recalibrate` starts it, and what its check task tells."""

from pathlib import Path

import pytest

from natix_lib import config
from natix_lib.bundle.runtime import Bundle
from natix_lib.config.form import recalibration_form, recalibration_rest
from natix_lib.contracts import RECALIBRATION, RECALIBRATION_FINGERPRINTS
from natix_lib.errors import ConfigError, StorageError
from natix_lib.files import read_json
from natix_lib.steps import check_recalibration
from natix_pipelines import local
from tests.cli.test_cli import write_config
from tests.pipelines.test_local import Recorder
from tests.short_stack import on_a_short_stack
from tests.steps.test_renew import new_images


def of(folder: Path, bundle: Path, *overrides: str) -> config.Config:
    (folder / "source").mkdir()
    path = write_config(folder, new_images(folder / "source"))
    return config.load(path, [f"recalibrate.bundle={bundle}", "scrc.alpha=0.4", "scrc.delta=0.2", *overrides])


def test_check_takes_classes_and_size_from_the_bundle_and_tells_data_and_bundle(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    given = of(tmp_path, tiny_bundle, "data.resize_shorter_side=77")
    compiled, rest = recalibration_form(given), recalibration_rest(given)
    told = check_recalibration.run({**compiled, "alpha": 0.25, "seed": "4"}, compiled, rest)
    settings = dict(zip([*RECALIBRATION, *RECALIBRATION_FINGERPRINTS], told, strict=True))
    bundle = Bundle.load(tiny_bundle)
    assert settings["ingest"]["data"]["class_names"] == bundle.class_names
    assert settings["ingest"]["data"]["resize_shorter_side"] == bundle.transform.resize_shorter_side != 77
    assert settings["bundle_fingerprint"] == bundle.documents.sha256
    assert settings["calibrate"]["scrc"]["alpha"] == 0.25
    assert settings["divide"]["split"]["seed"] == settings["evaluate"]["evaluate"]["seed"] == 4
    (Path(given.data.data_root) / "more.csv").write_text("x")
    again = check_recalibration.run(compiled, compiled, rest)
    assert again[len(RECALIBRATION)] != settings["data_fingerprint"]


def test_no_bundle_or_none_that_is_there_ends_check_with_the_key(tmp_path: Path) -> None:
    given = of(tmp_path, Path("gone"))
    with pytest.raises(StorageError, match="gone/bundle.json"):
        check_recalibration.prepared(given)
    with pytest.raises(ConfigError, match=r"recalibrate\.bundle must name the bundle"):
        check_recalibration.prepared(given.model_copy(update={"recalibrate": config.Recalibrate()}))


@pytest.mark.slow
def test_a_run_publishes_a_bundle_that_promises_for_the_new_images_and_its_second_month_goes_on_from_it(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    given, display = of(tmp_path, tiny_bundle), Recorder()
    on_a_short_stack(local.recalibrate, given, tmp_path / "first", tmp_path / "cache", display)
    new = Bundle.load(tmp_path / "first" / "bundle")
    assert new.documents.policy["guarantee"]["alpha"] == 0.4
    assert new.manifest["provenance"]["renewed_from"] == Bundle.load(tiny_bundle).documents.sha256
    evaluation = read_json(tmp_path / "first" / "evaluate" / "evaluation.json")
    assert evaluation["provenance"]["bundle_sha256"] == new.documents.sha256
    assert evaluation["n"] == len(new.documents.splits["roles"]["TEST"])
    month = given.model_copy(update={"recalibrate": config.Recalibrate(bundle=str(tmp_path / "first" / "bundle"))})
    on_a_short_stack(local.recalibrate, month, tmp_path / "second", tmp_path / "cache", Recorder())
    after = Bundle.load(tmp_path / "second" / "bundle").documents.splits
    assert after["trained"] == new.documents.splits["trained"]
