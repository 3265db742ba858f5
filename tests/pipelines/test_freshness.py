"""What a cluster's cache answers and what it does not, by KFP's rules, with real sources behind the addresses."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from natix_lib import config
from natix_lib.contracts import SCHEMA_VERSION, TASKS
from natix_lib.errors import StorageError
from natix_lib.files import write_json
from tests.cloud_storage import Cloud
from tests.kfp_cluster import Cluster, Run
from tests.pipelines.test_compile import DEFAULT, golden
from tests.simple_storage import Simple

AFTER_INGEST = {"split", "train", "sweep", "calibrate", "export", "evaluate"}
AFTER_TRAIN = AFTER_INGEST - {"split"}
ALL = {"check", "ingest", "fetch", *AFTER_INGEST}


@dataclass
class Sources:
    """Images and a backbone in folders, and the parameters that name them."""

    root: Path
    sent: dict[str, Any] = field(default_factory=dict)

    def run(self, cluster: Cluster, target: str = "kubeflow", explora: bool = False, **sent: Any) -> Run:
        return cluster.run(golden(target, explora).read_text(), **{**self.sent, **sent})


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    for name in ("images/None/1.jpg", "images/Roadwork/2.jpg", "backbone/config.json", "backbone/model.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return Sources(tmp_path, {"data_root": str(tmp_path / "images"), "backbone_id": str(tmp_path / "backbone")})


def test_images_added_below_the_same_address_are_ingested_and_nothing_that_stayed_is_done_again(
    sources: Sources,
) -> None:
    cluster = Cluster()
    assert sources.run(cluster).ran == ALL
    assert sources.run(cluster).ran == {"check"}
    (sources.root / "images" / "None" / "3.jpg").write_text("new")
    assert sources.run(cluster).ran == {"check", "ingest", *AFTER_INGEST}
    assert sources.run(cluster).ran == {"check"}
    (sources.root / "backbone" / "model.safetensors").write_text("other weights")
    assert sources.run(cluster).ran == {"check", "fetch", *AFTER_TRAIN}
    assert sources.run(cluster, enable_caching=True).ran == {"check"} == sources.run(cluster, enable_caching=True).ran
    (sources.root / "images" / "None" / "1.jpg").unlink()  # a client that has all tasks cached does not blind it
    assert "ingest" in sources.run(cluster, enable_caching=True).ran
    (sources.root / "images" / "None" / "3.jpg").unlink()
    assert "ingest" in sources.run(cluster).ran


@pytest.mark.parametrize("store", ["cloud", "simple"])
def test_objects_written_again_with_the_same_bytes_stay_cached_and_others_do_not(
    sources: Sources, store: str, request: pytest.FixtureRequest
) -> None:
    bucket: Cloud | Simple = request.getfixturevalue(store)
    sources.sent["data_root"] = f"{'gs' if store == 'cloud' else 's3'}://street/set"
    cluster, images = Cluster(), {"set/None/1.jpg": b"one", "set/Roadwork/2.jpg": b"two"}
    bucket.put(images)
    assert sources.run(cluster).ran == ALL
    bucket.put(images)
    bucket.put({"beside/3.jpg": b"of nobody"})
    assert sources.run(cluster).ran == {"check"}
    bucket.put({"set/None/1.jpg": b"ONE"})  # as long
    assert sources.run(cluster).ran == {"check", "ingest", *AFTER_INGEST}


def test_another_division_at_the_same_address_divides_anew_and_ingests_nothing(sources: Sources) -> None:
    cluster, previous = Cluster(), sources.root / "splits.json"
    splits = {"artifact": "splits", "schema_version": SCHEMA_VERSION, "dataset_fingerprint": "x", "warnings": []}
    splits |= {"class_names": ["None", "Roadwork"], "roles": {"TEST": ["a.jpg"]}, "groups": {"a.jpg": "a.jpg"}}
    write_json(previous, splits)
    assert sources.run(cluster, split={"previous": str(previous)}).ran == ALL
    assert sources.run(cluster, split={"previous": str(previous)}).ran == {"check"}
    write_json(previous, splits | {"roles": {"TEST": ["b.jpg"]}})
    assert sources.run(cluster, split={"previous": str(previous)}).ran == {"check", *AFTER_INGEST}


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_switching_explora_on_goes_on_from_what_is_ingested_divided_and_fetched(sources: Sources, target: str) -> None:
    cluster = Cluster()
    sources.run(cluster, target)
    assert sources.run(cluster, target, explora=True).ran == {"check", "adapt", *AFTER_TRAIN}
    assert sources.run(cluster, target).ran == {"check"} == sources.run(cluster, target, explora=True).ran


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_a_section_given_in_part_is_the_whole_one_to_every_step_and_to_the_cache(sources: Sources, target: str) -> None:
    cluster = Cluster()
    whole = DEFAULT.scrc.model_dump(mode="json", exclude={"alpha", "delta"}) | {"on_infeasible": "abstain"}
    first = sources.run(cluster, target, scrc=whole)
    for sent in ({"scrc": {"on_infeasible": "abstain"}}, {"scrc": {"on_infeasible": "abstain", "alpha": 0.05}}):
        again = sources.run(cluster, target, **sent)
        assert again.ran == {"check"}
        assert {step: again.given[step] for step in ALL - {"check"}} == {
            step: first.given[step] for step in ALL - {"check"}
        }
    changed = sources.run(cluster, target, alpha=0.02)
    assert changed.ran == {"check", "calibrate", "export", "evaluate"}
    by_section = sources.run(cluster, target, scrc={"alpha": 0.02})
    assert by_section.given["calibrate"] == changed.given["calibrate"] and by_section.ran == {"check"}
    scrc = config.parse(config.Scrc, changed.given["calibrate"]["settings"]["scrc"])
    assert scrc == DEFAULT.scrc.model_copy(update={"alpha": 0.02})


def test_what_check_tells_of_a_source_is_what_the_step_that_reads_it_is_given(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = sources.run(Cluster()).given
    told = {step: given[step][TASKS[step].fingerprint] for step in ("ingest", "split", "fetch")}
    assert told["split"] == "none" and len({*told.values()}) == 3
    assert all(len(told[step]) == 64 for step in ("ingest", "fetch"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # of a pod, where the time of status change says nothing
    assert sources.run(Cluster()).given["ingest"]["data_fingerprint"] != told["ingest"]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("images", "^data.data_root: .*images does not exist$"),
        ("backbone", "model.backbone_id .*backbone is no folder"),
    ],
)
def test_a_source_that_is_not_there_ends_check_in_one_line(sources: Sources, gone: str, message: str) -> None:
    shutil.rmtree(sources.root / gone)
    with pytest.raises(Exception, match=message) as refused:
        sources.run(Cluster())
    assert "\n" not in str(refused.value)


def test_what_the_log_of_check_says_is_what_a_run_changes_and_what_it_has_seen(
    sources: Sources, capsys: pytest.CaptureFixture[str]
) -> None:
    sources.run(Cluster(), scrc={"alpha": 0.1}, split={"seed": "0"})  # of which the seed is no change
    lines = capsys.readouterr().out.splitlines()
    assert "this run has scrc.alpha 0.1 in place of 0.05" in lines
    assert [line for line in lines if line.startswith("data fingerprint ")] and len(lines) == 6


def test_a_bucket_that_may_not_be_listed_is_one_line_that_names_the_key(sources: Sources, simple: Simple) -> None:
    sources.sent["data_root"] = "s3://no-such-bucket/set"
    with pytest.raises(StorageError, match="^data.data_root: s3://no-such-bucket/set: .*bucket does not exist"):
        sources.run(Cluster())
