"""A pipeline that ingests in shards: the graph of each target, and whole runs of it under KFP's local runner."""

import copy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.auth.credentials import AnonymousCredentials
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from natix_lib import config, run_cache
from natix_lib.config.form import form, sections
from natix_lib.contracts import SETS, TASKS
from natix_lib.data.index import read_index
from natix_lib.errors import ConfigError, NatixError
from natix_lib.files import read_json
from natix_pipelines import dry_run, local
from natix_pipelines.compile import compiled
from natix_pipelines.submit import run_parameters
from natix_pipelines.targets import Target
from natix_pipelines.training import steps_of
from tests.cli.test_cli import write_config
from tests.pipelines.test_compile import CONFIG
from tests.pipelines.test_local import Recorder
from tests.short_stack import on_a_short_stack
from tests.street_sets import write_images

SHARDED_CONFIG = config.load(CONFIG, ["data.shards=3"])


@pytest.fixture(scope="module", params=["kubeflow", "vertex"])
def text(request: pytest.FixtureRequest) -> str:
    made: str = on_a_short_stack(compiled, Target(request.param), SHARDED_CONFIG, False)
    return made


def test_a_sharded_pipeline_parses_strictly_and_split_takes_the_images_of_every_shard(text: str) -> None:
    spec, *platform = yaml.safe_load_all(text)
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    tasks = spec["root"]["dag"]["tasks"]
    (loop,) = (name for name in tasks if name.startswith("for-loop"))
    assert set(tasks) == {*steps_of(False, 3), "check", loop} - {"shard"} and "ingest" not in tasks
    assert tasks[loop]["parameterIterator"]["items"]["raw"] == '["1/3", "2/3", "3/3"]'
    (shard,) = spec["components"][f"comp-{loop}"]["dag"]["tasks"].values()
    assert shard["taskInfo"]["name"] == TASKS["shard"].title and shard["retryPolicy"]["maxRetryCount"] == 2
    assert "retryPolicy" not in tasks["gather"]

    def source(task: str, name: str) -> tuple[str, str]:
        made = tasks[task]["inputs"]["artifacts"][name]["taskOutputArtifact"]
        return made["producerTask"], made["outputArtifactKey"]

    assert source("gather", "part") == (loop, "pipelinechannel--shard-part")
    assert source("split", "shards") == (loop, "pipelinechannel--shard-images")
    assert source("split", "index") == ("gather", "index") and "images" not in tasks["split"]["inputs"]["artifacts"]
    takers = {
        given["taskOutputArtifact"]["outputArtifactKey"]: name
        for name, task in tasks.items()
        for given in task["inputs"].get("artifacts", {}).values()
        if given["taskOutputArtifact"]["outputArtifactKey"] in (*SETS.values(), "pipelinechannel--shard-images")
    }
    assert takers["test_set"] == "evaluate" and takers["pipelinechannel--shard-images"] == "split"
    if platform:
        executors = platform[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        assert set(executors) == {f"exec-{name}" for name in ("check", *steps_of(False, 3))}


@pytest.mark.slow  # the import alone takes ten seconds
def test_vertex_takes_a_sharded_pipeline(tmp_path: Path) -> None:
    from google.cloud import aiplatform

    path = tmp_path / "sharded.yaml"
    path.write_text(on_a_short_stack(compiled, Target("vertex"), SHARDED_CONFIG, False))
    assert aiplatform.PipelineJob(
        display_name="natix",
        template_path=str(path),
        pipeline_root="gs://bucket/root",
        project="project",
        location="europe-west4",
        credentials=AnonymousCredentials(),
    )


def test_uncached_ingest_means_its_shards_too() -> None:
    settings = config.load(CONFIG, ["data.shards=3", "hardware.uncached_steps=[ingest]"])
    spec = next(yaml.safe_load_all(on_a_short_stack(compiled, Target("kubeflow"), settings, False)))
    tasks = spec["root"]["dag"]["tasks"]
    (shard,) = (task for name, task in spec["components"].items() if name.startswith("comp-for-loop"))
    assert not shard["dag"]["tasks"]["shard"]["cachingOptions"] and not tasks["gather"]["cachingOptions"]
    assert tasks["split"]["cachingOptions"] == {"enableCache": True}


def test_no_parameter_of_a_run_can_contradict_the_number_of_shards() -> None:
    parameters = form(SHARDED_CONFIG)
    assert parameters == form(config.load(CONFIG)) and "shards" not in parameters["data"]
    compiled = copy.deepcopy(parameters)
    sections(parameters, compiled)
    parameters["data"]["shards"] = 4.0
    with pytest.raises(ConfigError, match=r"config: data.shards is compiled into the pipeline: leave it out, or comp"):
        sections(parameters, compiled)
    assert run_parameters(SHARDED_CONFIG, ["data.shards=3"]) == {}


@pytest.mark.parametrize("value", [0, 91, 1.5])
def test_shards_are_a_number_that_vertex_can_give_to_one_task(value: float) -> None:
    with pytest.raises(ConfigError, match=r"config: data.shards: input should .*, got"):
        config.load(CONFIG, [f"data.shards={value}"])


def run(path: Path, folder: Path, name: str, *overrides: str) -> Recorder:
    display = Recorder()
    on_a_short_stack(local.run, config.load(path, overrides), folder / name, folder / "cache", display)
    return display


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> tuple[Path, Path]:
    """A folder with a config for small images, and a cache in which it has run in one shard, to `whole`."""
    folder = tmp_path_factory.mktemp("sharded")
    path = write_config(folder, write_images(folder / "source", groups=40), tiny_backbone)
    run(path, folder, "whole")
    return folder, path


@pytest.mark.slow
@pytest.mark.xdist_group("sharded")
def test_a_run_in_shards_has_the_splits_of_a_whole_one_and_all_that_follows_from_its_cache(
    street: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = street
    sharded = config.load(path, ["data.shards=3"])
    before = dry_run.plan(sharded, folder / "three", folder / "cache")
    assert before.states["shard"] == before.states["gather"] == "run" and before.states["fetch"] == "cached"
    first = run(path, folder, "three", "data.shards=3")
    ended = [event for event in first.events if not event.startswith("started")]
    steps = ["shard"] * 3 + steps_of(False, 3)[1:]
    at_work = {"shard", "gather", "split"}
    assert sorted(ended) == sorted(f"{'finished' if step in at_work else 'cached'} {step}" for step in steps)
    assert "shard: shard 2 of 3 has 40 of 120 images" in first.lines
    assert not any("No module" in line or "Traceback" in line for line in first.lines)
    splits = [read_json(folder / name / "split" / "splits.json") for name in ("whole", "three")]
    assert splits[0] == splits[1]
    whole, three = (read_index(folder / name / "ingest" / "index.parquet") for name in ("whole", "three"))
    assert three.table().equals(whole.table()) and three.fingerprint == whole.fingerprint
    assert len(three.document["parts"]) == 3
    names = {name: {file.name for file in (folder / name).rglob("*")} for name in ("whole", "three")}
    assert names["whole"] == names["three"]
    again = run(path, folder, "again", "data.shards=3")
    assert sorted(again.events) == sorted(f"cached {step}" for step in steps)
    plan = dry_run.plan(sharded, folder / "none", folder / "cache")
    assert set(plan.states) == set(steps) and set(plan.states.values()) == {"cached"} and plan.images == 120
    assert [entry.step for entry in run_cache.kept(folder / "cache") if not entry.key] == []


@pytest.mark.slow
@pytest.mark.xdist_group("sharded")
def test_a_run_in_shards_that_gather_refuses_gives_gathers_own_error(street: tuple[Path, Path]) -> None:
    folder, path = street
    source = folder / "source"
    (source / "39-2.png").rename(source / "39-2.png.gone")  # the last shard's, and another fingerprint
    with pytest.raises(NatixError, match=r"1 of 120 images cannot be used, more than data.max_reject_fraction 0.001"):
        run(path, folder, "failed", "data.shards=3", "data.max_reject_fraction=0.001")
    done = run(path, folder, "less", "data.shards=3", "data.max_reject_fraction=0.01")
    assert (folder / "less" / "ingest" / "rejects.csv").read_text().splitlines()[1] == "39-2.png,no such file"
    assert done.events.count("finished shard") == 3


@pytest.mark.slow
@pytest.mark.xdist_group("sharded")
def test_a_run_that_is_told_to_stop_ends_in_the_middle_of_its_shards(street: tuple[Path, Path], tmp_path: Path) -> None:
    _, path = street
    command: list[Any] = [sys.executable, "-m", "natix_lib.cli", "run", "-c", path, "-o", tmp_path / "out"]
    command += ["--cache", tmp_path / "cache", "--set", "data.shards=40"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        ended = (line for line in process.stderr if line.startswith("done") and "shard" in line)  # fetch may be first
        shown = [next(ended), next(ended)]  # now the first shard is kept
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        shown += process.stderr.readlines()
    assert process.returncode == 143 and time.monotonic() - began < 60 and "stopped:" in shown[-1]  # all take minutes
    entries = run_cache.kept(tmp_path / "cache")
    assert 1 <= sum(entry.step == "shard" and bool(entry.key) for entry in entries) < 20
