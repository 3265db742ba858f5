"""Runs started by `make submit` and by KFP's own command, against stand-ins of the two APIs on the loopback."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from google.auth.credentials import AnonymousCredentials

from natix_lib import cli, config
from natix_lib.config.form import form, sections
from natix_lib.errors import ConfigError, NatixError
from natix_pipelines import submit
from natix_pipelines.submit import run_parameters, several, to_vertex
from tests.cloud_storage import Cloud
from tests.loopback import Handler, serving
from tests.short_stack import on_a_short_stack

RUN = {
    "run_id": "r1",
    "display_name": "first",
    "state": "PENDING",
    "experiment_id": "e1",
    "created_at": "2025-01-01T00:00:00Z",
}
ROOT = Path(__file__).parent.parent.parent
GOLDEN = Path(__file__).parent / "golden"
CONFIG = ROOT / "pipelines" / "configs" / "default.yaml"
KFP = Path(sys.executable).parent / "kfp"


@dataclass
class Api:
    """Where it listens, and what was posted to it."""

    url: str
    runs: list[dict[str, Any]] = field(default_factory=list)
    uploads: list[bytes] = field(default_factory=list)


@pytest.fixture
def api() -> Iterator[Api]:
    class Pipelines(Handler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            experiment = {"experiment_id": "e1", "display_name": "street"}
            if path.endswith("/healthz"):
                self.answer_json({"multi_user": False})
            elif path.endswith("/experiments"):
                self.answer_json({"experiments": [experiment]})
            elif "/runs/" in path:
                self.answer_json(RUN)
            else:
                self.answer_json(experiment)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if urlsplit(self.path).path.endswith("/runs"):
                stand_in.runs.append(json.loads(body))
                self.answer_json(RUN)
            else:
                stand_in.uploads.append(body)
                self.answer_json({"pipeline_id": "p1", "display_name": "natix", "created_at": "2025-01-01T00:00:00Z"})

    with serving(Pipelines) as url:
        stand_in = Api(url)
        yield stand_in


def kfp(api: Api, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KF_")}
    return subprocess.run(
        [str(KFP), "--endpoint", api.url, *arguments], capture_output=True, text=True, timeout=600, env=environment
    )


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["training", "training-explora"])
def test_a_run_is_submitted_with_its_specification_and_parameters(api: Api, variant: str) -> None:
    package = str(GOLDEN / "kubeflow" / f"{variant}.yaml")
    scrc = {"on_infeasible": "abstain"}
    done = kfp(
        api, "run", "submit", "-e", "street", "-r", "first", "-f", package, 'num_gpus="2"', "alpha=0.02",
        f"scrc={json.dumps(scrc)}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = api.runs
    assert run["display_name"] == "first" and run["experiment_id"] == "e1"
    assert run["runtime_config"]["parameters"]["scrc"] == scrc and run["runtime_config"]["parameters"]["alpha"] == 0.02
    assert run["runtime_config"]["parameters"]["num_gpus"] == "2"  # quoted: kfp parses values as JSON
    specification = run["pipeline_spec"]["pipeline_spec"]
    assert specification["pipelineInfo"]["name"] == "natix-training"
    assert ("adapt" in specification["root"]["dag"]["tasks"]) == (variant == "training-explora")
    assert (
        "exec-train" in run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    )


def test_the_pipeline_is_uploaded(api: Api) -> None:
    done = kfp(api, "pipeline", "upload", str(GOLDEN / "kubeflow" / "training.yaml"), "-p", "natix")
    assert done.returncode == 0, done.stderr
    assert b"natix-training" in api.uploads[0]


def make_submit(
    *variables: str, environment: dict[str, str] | None = None, venv: Path = Path(sys.executable).parent.parent
) -> subprocess.CompletedProcess[str]:
    """`make submit` with the Python of a virtual environment, by default this test's, as it is installed."""
    command = ["make", "-o", f"{venv}/.installed", "submit", f"VENV={venv}", *variables]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("KF")}
    return subprocess.run(
        command, cwd=ROOT, env={**inherited, **(environment or {})}, capture_output=True, text=True, timeout=600
    )


@pytest.fixture
def submit_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """What `make submit` starts, done in this process, which has imported KFP already; gives its exit code."""
    python, told = tmp_path / "venv" / "bin" / "python", tmp_path / "arguments"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" > '{told}'\n")
    python.chmod(0o755)
    monkeypatch.chdir(ROOT)
    for name in [name for name in os.environ if name.startswith("KF_")]:
        monkeypatch.delenv(name)

    def run(*variables: str, environment: dict[str, str] | None = None) -> int:
        done = make_submit(*variables, environment=environment, venv=tmp_path / "venv")
        assert done.returncode == 0, done.stderr
        dash_m, module, *arguments = told.read_text().split("\0")[:-1]
        assert (dash_m, module) == ("-m", "natix_pipelines.submit")
        monkeypatch.setattr(sys, "argv", ["submit", *arguments])
        with pytest.raises(SystemExit) as ended:
            on_a_short_stack(submit.main)
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("explora", "variant"), [("false", "training"), ("true", "training-explora")])
def test_make_submit_starts_a_run_with_what_it_names_and_a_gpu_count_as_text(
    api: Api, submit_here: Callable[..., int], explora: str, variant: str
) -> None:
    code = submit_here(
        "TARGET=kubeflow",
        f"KFP_ENDPOINT={api.url}",
        "EXPERIMENT=street",
        "RUN=first",
        "SET=hardware.num_gpus=2 scrc.alpha=0.02 sweep.max_risk=0.1 training.optimizer.lr=1e-4 "
        f"model.init_from_explora={explora}",
    )
    assert code == 0
    (run,) = api.runs
    assert run["display_name"] == "first" and run["experiment_id"] == "e1"
    tasks = run["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert ("adapt" in tasks) == (variant == "training-explora")
    assert run["runtime_config"]["parameters"] == {
        "num_gpus": "2",
        "alpha": 0.02,
        "sweep": {"max_risk": 0.1},
        "lr": 1e-4,
        "model": {"init_from_explora": explora == "true"},
    }


@pytest.mark.slow
def test_make_submit_takes_overrides_from_the_environment_and_needs_none(
    api: Api, submit_here: Callable[..., int]
) -> None:
    for environment in ({"SET": "scrc.delta=0.05 'data.class_names=[None, Roadwork]'"}, {}):
        assert submit_here("TARGET=kubeflow", f"KFP_ENDPOINT={api.url}", environment=environment) == 0
    first, second = api.runs
    parameters = first["runtime_config"]["parameters"]
    assert parameters["delta"] == 0.05 and first["display_name"] == "natix"
    assert parameters["data"] == {"class_names": ["None", "Roadwork"]}
    assert not second["runtime_config"].get("parameters")


@pytest.mark.slow
def test_hardware_is_compiled_into_the_run(api: Api) -> None:
    done = make_submit("TARGET=kubeflow", f"KFP_ENDPOINT={api.url}", "SET=hardware.memory=3Gi hardware.num_gpus=0")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = api.runs
    executors = run["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    assert executors["exec-train"]["container"]["resources"]["resourceMemoryLimit"] == "3Gi"
    assert run["runtime_config"]["parameters"] == {"num_gpus": "0"}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (["SET=scrc.alpha=2"], "config: scrc.alpha: input should be less than 1, got 2"),
        (["RELEASE=1"], "a release needs images named by their digest.*--image-cpu natix-cpu:latest, --image-gpu"),
        (["TARGET=all"], "submitting needs TARGET kubeflow or vertex, got 'all'"),
        (["KFP_ENDPOINT="], "submitting to kubeflow needs KFP_ENDPOINT"),
        (
            ["TARGET=vertex", "PROJECT=street"],
            "vertex needs PROJECT, REGION, PIPELINE_ROOT: REGION, PIPELINE_ROOT missing",
        ),
    ],
)
def test_make_submit_says_what_is_wrong_in_one_line_and_sends_nothing(
    api: Api,
    submit_here: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    variables: list[str],
    message: str,
) -> None:
    code = submit_here("TARGET=kubeflow", f"KFP_ENDPOINT={api.url}", *variables)
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and re.fullmatch(f"error: .*{message}.*", line) and api.runs == []


OVERRIDES = [
    "alpha=0.02", "scrc.alpha", "scrc.alfa=0.02", "hardware.num_gpu=2", "hardware.num_gpus=two", "scrc=0.02",
    "scrc={alpha: 2}", "data_version=2", "split.seed=[",
]  # fmt: skip


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_wrong_override_is_the_same_line_as_of_natix_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], override: str
) -> None:
    lines = []
    submitted = ["submit", "--target", "kubeflow", "--image-cpu", "a", "--image-gpu", "a", "--experiment", "e"]
    for main, command in (
        (submit.main, [*submitted, "--run", "r", "--set", override]),
        (cli.main, ["natix", "run", "--output", str(tmp_path / "run"), "--set", override]),
    ):
        monkeypatch.setattr(sys, "argv", [*command, "--config", str(CONFIG)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        lines.append(capsys.readouterr().err)
    assert lines[0] == lines[1] and len(lines[0].splitlines()) == 1 and not list(tmp_path.iterdir())


def parameters_of(*overrides: str) -> dict[str, Any]:
    return run_parameters(config.load(CONFIG, overrides), overrides)


def test_only_what_is_named_is_sent() -> None:
    assert parameters_of() == {} == parameters_of("hardware.memory=3Gi")
    assert parameters_of("hardware.num_gpus=0") == {"num_gpus": "0"} == parameters_of("hardware={num_gpus: 0}")
    whole = form(config.load(CONFIG))
    assert parameters_of(" sweep.max_risk=0.1", "scrc.alpha = 0.02", "scrc.sets=pac", "scrc.on_infeasible=fail") == {
        "sweep": {"max_risk": 0.1},
        "alpha": 0.02,
        "scrc": {"sets": "pac", "on_infeasible": "fail"},
    }
    optimizer = whole["training"]["optimizer"]
    assert parameters_of("training.optimizer={lr: 1e-4}") == {"lr": 1e-4, "training": {"optimizer": optimizer}}
    assert parameters_of("evaluate.seed=1") == {"evaluate": {"seed": 1}}
    seeds = [f"{section}.seed=3" for section in ("split", "explora", "training", "evaluate")]
    assert parameters_of(*seeds) == {"seed": "3"}
    assert parameters_of("scrc={alpha: 0.2}") == {"alpha": 0.2, "delta": 0.1, "scrc": whole["scrc"]}


MAPPINGS = ["data.class_aliases={a: None}", "data.contradictions={drive: {city: [rural]}}"]


@pytest.mark.parametrize(
    "override",
    [
        "scrc.sets=pac", "scrc={alpha: 0.2}", "evaluate.seed=1", "split.seed=3", "training.optimizer.lr=.2",
        "training.optimizer.weight_decay=.2", "training.optimizer={lr: .2}", "data.columns.lat=y",
        "model.num_classes=2", "data.class_names=[None, Roadwork]", "data.class_aliases={foo: Roadwork}",
        "data.class_aliases.foo=Roadwork", "data.class_aliases={}", "data.contradictions.night={light: [sun]}",
        "data.contradictions.drive.city=[coast]", "data.contradictions.drive.sky=[roof]", "hardware.num_gpus=2",
    ],
)  # fmt: skip
@pytest.mark.parametrize("with_it", [False, True])
def test_what_is_sent_gives_the_config_that_was_meant(override: str, with_it: bool) -> None:
    """To a pipeline that was compiled with the override, as `make submit` does, and to one without."""
    meant = config.load(CONFIG, [*MAPPINGS, override])
    sets_the_rest = override.startswith(("scrc={", "training.optimizer={"))  # to the library's defaults, as --set does
    compiled = form(meant if with_it or sets_the_rest else config.load(CONFIG, MAPPINGS))
    parameters = {**compiled, **run_parameters(meant, [override])}
    assert config.parse(config.Config, sections(parameters, compiled)) == meant


def test_a_key_of_a_mapping_sends_the_whole_mapping_which_a_run_replaces_whole() -> None:
    overrides = [MAPPINGS[0], "data.class_aliases.foo=Roadwork"]
    sent = run_parameters(config.load(CONFIG, overrides), overrides[1:])
    assert sent == {"data": {"class_aliases": {"a": "None", "foo": "Roadwork"}}}


def test_a_text_of_several_overrides_is_quoted_as_in_a_shell() -> None:
    assert several("") == []
    assert several(" a.b=1  'c.d=[x, y]' e.f=\"g h\" ") == ["a.b=1", "c.d=[x, y]", "e.f=g h"]
    with pytest.raises(ConfigError, match="SET takes section.key=value, quoted as in a shell: No closing quotation"):
        several("a.b='1")


@dataclass
class Vertex:
    """What was asked of it, and the status that it answers with."""

    jobs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    status: int = 200


@pytest.fixture
def vertex(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vertex]:
    """Vertex's REST interface and Cloud Storage on the loopback, as their clients find them."""
    from google.cloud import aiplatform
    from google.cloud.aiplatform.utils import gcs_utils

    # Its client asks the Resource Manager who owns the bucket, over gRPC and at a fixed address.
    monkeypatch.setattr(gcs_utils, "_verify_bucket_ownership", lambda *_: True)

    class Jobs(Handler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = urlsplit(self.path)
            stand_in.jobs.append((path.path, body))
            if stand_in.status != 200:
                return self.answer(stand_in.status, b'{"error": {"message": "no quota for this"}}')
            name = dict(parse_qsl(path.query))["pipelineJobId"]
            return self.answer_json({**body, "name": f"{path.path.removeprefix('/v1/')}/{name}"})

    stand_in = Vertex()
    with serving(Jobs) as url:
        aiplatform.init(api_endpoint=url, api_transport="rest", credentials=AnonymousCredentials())
        yield stand_in
        aiplatform.initializer.global_config.__init__()


def submit_to_vertex(parameters: dict[str, Any], variant: str = "training", **changed: str) -> str:
    package = GOLDEN / "vertex" / f"{variant}.yaml"
    named = {
        "experiment": "street",
        "run": "first",
        "project": "street-1",
        "region": "europe-west4",
        "pipeline_root": "gs://street/runs",
        "service_account": "natix@street-1.iam.gserviceaccount.com",
    }
    return to_vertex(package, parameters, **{**named, **changed})


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["training", "training-explora"])
def test_a_run_on_vertex_is_a_pipeline_job(vertex: Vertex, variant: str) -> None:
    name = submit_to_vertex({"num_gpus": "2", "scrc": {"alpha": 0.02}}, variant)
    ((path, job),) = vertex.jobs
    assert path == "/v1/projects/street-1/locations/europe-west4/pipelineJobs"
    assert name.startswith("projects/street-1/locations/europe-west4/pipelineJobs/natix-training-")
    assert job["displayName"] == "first" and job["labels"]["experiment"] == "street"
    assert job["serviceAccount"] == "natix@street-1.iam.gserviceaccount.com"
    runtime = job["runtimeConfig"]
    assert runtime["gcsOutputDirectory"] == "gs://street/runs"
    assert runtime["parameterValues"] == {"num_gpus": "2", "scrc": {"alpha": 0.02}}
    assert job["pipelineSpec"]["pipelineInfo"]["name"] == "natix-training"


@pytest.mark.slow
def test_what_vertex_refuses_is_one_line(vertex: Vertex) -> None:
    vertex.status = 403
    with pytest.raises(NatixError, match="Vertex has not taken the run first: 403 .*no quota for this"):
        submit_to_vertex({})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"region": ""}, "submitting to vertex needs PROJECT, REGION, PIPELINE_ROOT: REGION missing"),
        ({"pipeline_root": "/runs"}, "PIPELINE_ROOT must read gs://bucket/path, got '/runs'"),
        ({"experiment": "My street"}, "EXPERIMENT is a label on vertex.*got 'My street'"),
    ],
)
def test_what_vertex_needs_is_asked_for(changed: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        submit_to_vertex({}, **changed)
