"""`natix doctor --cluster`: twelve made clusters behind a stand-in of the API server, each wrong in one way."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from natix_lib import cli, config
from natix_lib.errors import ConfigError
from natix_lib.files import JsonDict
from natix_lib.survey import cluster
from natix_lib.survey.capacity import asked_by, capacity_rows
from natix_lib.survey.checkup import checkup, require_fit
from natix_lib.survey.cluster import Seen, Unseen
from natix_lib.survey.verdicts import HOLDS, NOT_SEEN, PARTLY, SHORT, Row
from tests.loopback import Handler, serving
from tests.survey.clusters import (
    ARGO,
    GOOD,
    GPU_LABELS,
    GPU_TAINT,
    HEALTH,
    HERE,
    NODES,
    REVIEWS,
    SERVER,
    TRAINER,
    Paths,
    api_server,
    argo,
    config_map,
    gpu_node,
    made,
    node,
    write_kubeconfig,
)

TWO_NODES = {"num_nodes": 2, "shared_root": "gs://street/nodes"}
MORE_GPUS = {NODES: {"items": [node("cpu-1"), gpu_node("gpu-1"), gpu_node("gpu-2")]}}
TRAINER_2: Paths = {TRAINER: {}, f"{TRAINER}/clustertrainingruntimes/torch-distributed": {}}


@pytest.fixture(autouse=True)
def _no_other_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KFP_ENDPOINT", raising=False)


def settings(hardware: dict[str, Any] | None = None, **data: Any) -> config.Config:
    values = {
        "data": {"data_root": "/nowhere/images", **data},
        "model": {"backbone_id": "owner/vit"},
        "export": {"policy": "sweep"},
        "hardware": {"volumes": [{"claim": "images", "path": "/nowhere"}], **(hardware or {})},
    }
    return config.parse(config.Config, values)


BOUND = {"spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound"}}


def rows_of(changes: Paths, hardware: dict[str, Any] | None, folder: Path) -> dict[str, Row]:
    with api_server(made({f"{HERE}/persistentvolumeclaims/images": BOUND, **changes}), folder):
        rows = checkup(settings(hardware), "street")
    assert len({row.what for row in rows}) == len(rows)
    return {row.what: row for row in rows}


def quota(hard: dict[str, str], used: dict[str, str]) -> Paths:
    status = {"hard": hard, "used": used}
    return {f"{HERE}/resourcequotas": {"items": [{"metadata": {"name": "team"}, "spec": {}, "status": status}]}}


def only_reads(review: dict[str, Any]) -> dict[str, Any]:
    attributes = review["spec"]["resourceAttributes"]
    return {"status": {"allowed": attributes["verb"] != "create" or attributes["group"] == "argoproj.io"}}


def of_an_earlier_version(review: dict[str, Any]) -> dict[str, Any]:
    attributes = review["spec"]["resourceAttributes"]
    return {"status": {"allowed": attributes["verb"] != "patch" and "subresource" not in attributes}}


def no_cluster_runtimes(review: dict[str, Any]) -> dict[str, Any]:
    return {"status": {"allowed": review["spec"]["resourceAttributes"]["resource"] != "clustertrainingruntimes"}}


OTHER_TAINT = {"key": "team", "value": "b", "effect": "NoExecute"}
AUTOSCALER = "/api/v1/namespaces/kube-system/configmaps/cluster-autoscaler-status"
GPU_STEPS = "node for steps with GPUs (train)"
CLUSTERS: dict[str, tuple[Paths, dict[str, Any], str, str, str]] = {
    # what is wrong: changes, hardware, the row, its verdict, what it says
    "CPUs of 3.9": (
        {NODES: {"items": [node("small", cpu="3920m"), gpu_node("gpu-1", cpu="3.9")]}}, {},
        "node for steps without GPUs", SHORT, r"asks 4 CPUs, the largest node has 3.92 CPUs: hardware.cpu below that",
    ),
    "no GPU label": (
        {NODES: {"items": [node("cpu-1"), node("gpu-1", {}, [GPU_TAINT], **{"nvidia.com/gpu": "1"})]}}, {},
        GPU_STEPS, SHORT, r"none of 2 nodes has the labels cloud.google.com/gke-accelerator=nvidia-l4: hardware.gpu_",
    ),
    "a taint": (
        {NODES: {"items": [node("cpu-1"), node("gpu-1", GPU_LABELS, [OTHER_TAINT])]}}, {},
        GPU_STEPS, SHORT, r"node gpu-1 has the taint team=b:NoExecute: hardware.gpu_tolerations",
    ),
    "a pool at zero": (
        {NODES: {"items": [node("cpu-1")]}, AUTOSCALER: {}}, {},
        GPU_STEPS, NOT_SEEN, r"none of 1 nodes has the labels .* now, but the cluster autoscaler may bring one",
    ),
    "a quota": (
        quota({"requests.nvidia.com/gpu": "2", "pods": "50"}, {"requests.nvidia.com/gpu": "1"}), {"num_gpus": 4},
        "quota team, requests.nvidia.com/gpu", SHORT, r"\(train\) ask 4 GPUs, it allows 2 GPUs: hardware.num_gpus",
    ),
    "a limit range": (
        {f"{HERE}/limitranges": {"items": [{"metadata": {"name": "small"}, "spec": {"limits": [
            {"type": "Container", "max": {"memory": "8Gi"}}]}}]}}, {"gpu_memory": "8Gi"},
        "limit range small", SHORT, r"steps without GPUs ask 16.0 GiB, it allows 8.0 GiB: hardware.memory at most that",
    ),
    "a restricted namespace": (
        {HERE: {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}}, {},
        "Pod Security", SHORT, r"street enforces restricted and refuses pods that.*: hardware.restricted: true",
    ),
    "an old KFP": (
        {HEALTH: {"apiServerTagName": "2.14.3"}}, {"restricted": True},
        "Pod Security", SHORT, r"KFP 2.14 refuses the security context of hardware.restricted: KFP 2.17, or",
    ),
    "a secret and a claim that are not there": (
        {f"{HERE}/persistentvolumeclaims/images": None}, {"store_secret": "mlpipeline-minio-artifact"},
        "secret mlpipeline-minio-artifact", SHORT, r"is not in street: kubectl create secret.*hardware.store_secret",
    ),
    "KFP's retries": (
        {ARGO: argo("OnError", "2")}, {}, "retries", PARTLY,
        r"deleted is tried again, a step that failed never, and .* up to 3 times at each level.*: kubectl patch",
    ),
    "no rights for TrainJobs": (
        {**MORE_GPUS, **TRAINER_2, REVIEWS: only_reads}, TWO_NODES,
        "rights of launchers, account pipeline-runner", SHORT, r"may not create trainjobs: kubectl apply -k manifests",
    ),
    "a role of an earlier version": (
        {**MORE_GPUS, **TRAINER_2, REVIEWS: of_an_earlier_version}, TWO_NODES,
        "rights of launchers, account pipeline-runner", PARTLY, r"may not patch trainjobs, get pods/log: kubectl apply",
    ),
    "nothing may be looked at": (
        {path: 403 for path in GOOD if path not in ("/version", HEALTH)}, {},
        "nodes", NOT_SEEN, "403 Forbidden: ask who",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", CLUSTERS)
def test_a_made_cluster_falls_short_in_its_one_way_and_says_what_to_do(wrong: str, tmp_path: Path) -> None:
    changes, hardware, what, verdict, text = CLUSTERS[wrong]
    rows = rows_of(changes, hardware, tmp_path)
    row = rows[what]
    assert row.verdict == verdict and re.search(text, f"{row.seen}: {row.todo}"), row
    short = {row.what for row in rows.values() if row.verdict == SHORT}
    also = {
        "CPUs of 3.9": {GPU_STEPS},
        "a quota": {GPU_STEPS},
        "a secret and a claim that are not there": {"claim images"},
    }
    assert short == ({what} if verdict == SHORT else set()) | also.get(wrong, set())
    assert all(row.todo for row in rows.values() if row.verdict != HOLDS)


def test_a_good_cluster_holds_in_every_row_with_one_node_and_with_two(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with api_server(made({**MORE_GPUS, **TRAINER_2}), tmp_path) as asked:
        one = config.load(write_config(tmp_path, {"num_nodes": 1, "volumes": []}), [])
        two = config.load(write_config(tmp_path, {**TWO_NODES, "volumes": []}), [])
        rows = [*checkup(one, "street"), *checkup(two, "street")]
    assert [row for row in rows if row.verdict != HOLDS and row.what != "data.data_root"] == []
    assert {row.what for row in rows} >= {
        "TrainJobs",
        "node for nodes of a TrainJob (train)",
        "GPUs",
        "disk",
        "retries",
    }
    for path, headers, body in asked:
        assert "/secrets/" not in path or "PartialObjectMetadata" in headers["Accept"], (
            "a secret's content was asked for"
        )
        if path == REVIEWS:
            assert headers["Impersonate-User"] == "system:serviceaccount:street:pipeline-runner"
            assert body["kind"] == "SelfSubjectAccessReview"


def write_config(folder: Path, hardware: dict[str, Any]) -> Path:
    path = folder / "config.yaml"
    values = settings(hardware).model_dump(mode="json")
    values["data"]["data_root"] = str(folder / "images")
    path.write_text(yaml.safe_dump(values))
    return path


def test_nodes_of_a_trainjob_are_counted_and_gpus_of_nobody_are_said(tmp_path: Path) -> None:
    rows = rows_of(TRAINER_2, TWO_NODES, tmp_path)
    assert rows["node for nodes of a TrainJob (train)"] == Row(
        "node for nodes of a TrainJob (train)", SHORT, "room for 1 of 2", "hardware.num_nodes below 2, or more nodes"
    )
    fake = gpu_node("gpu-1")
    fake["metadata"]["labels"], fake["spec"] = {"kubernetes.io/os": "linux"}, {}
    hardware = {"gpu_node_selector": {"kubernetes.io/os": "linux"}}
    cordoned = {**node("cpu-1"), "spec": {"unschedulable": True}}
    rows = rows_of({NODES: {"items": [gpu_node("gpu-1"), cordoned]}}, None, tmp_path)
    assert rows["node for steps without GPUs"].verdict == NOT_SEEN
    assert "cpu-1 is cordoned or not ready" in rows["node for steps without GPUs"].seen
    rows = rows_of({NODES: {"items": [fake]}}, hardware, tmp_path)
    assert rows[GPU_STEPS].verdict == HOLDS
    assert rows["GPUs"].verdict == NOT_SEEN and "no label of a driver" in rows["GPUs"].seen


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ({"spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Lost"}}, SHORT),
        ({"spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Pending"}}, NOT_SEEN),
        ({"spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound"}}, PARTLY),
        (BOUND, HOLDS),
        (403, NOT_SEEN),
    ],
)
def test_a_claim_is_judged_by_its_phase_and_by_who_may_mount_it(claim: Any, verdict: str, tmp_path: Path) -> None:
    rows = rows_of({f"{HERE}/persistentvolumeclaims/images": claim}, None, tmp_path)
    assert rows["claim images"].verdict == verdict and "data.data_root" not in rows


def test_what_else_a_cluster_may_say_is_judged(tmp_path: Path) -> None:
    server = {
        "image": "kfp-api-server:2.17.0",
        "env": [{"name": "DEFAULT_SECURITY_CONTEXT_RUN_AS_NON_ROOT", "value": "true"}],
    }
    restricted = {HERE: {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}}
    admins = {**restricted, SERVER: {"spec": {"template": {"spec": {"containers": [server]}}}}}
    assert rows_of(admins, None, tmp_path)["Pod Security"].verdict == HOLDS
    assert rows_of(restricted, {"restricted": True}, tmp_path)["Pod Security"].verdict == HOLDS
    rows = rows_of(
        {
            HEALTH: {"tag_name": "2.5.0"},
            ARGO: config_map(),
            f"{HERE}/configmaps/kfp-launcher": config_map(defaultPipelineRoot="gs://BUCKET/kfp"),
            f"{HERE}/secrets/hf-token": None,
            f"{HERE}/serviceaccounts/pipeline-runner": None,
            **quota({"requests.cpu": "20"}, {"requests.cpu": "15"}),
        },
        None,
        tmp_path,
    )
    verdicts = {what: row.verdict for what, row in rows.items()}
    assert verdicts["KFP"] == verdicts["pipeline root"] == SHORT
    assert verdicts["secret hf-token"] == verdicts["account pipeline-runner"] == verdicts["retries"] == PARTLY
    assert (
        rows["quota team, requests.cpu"].verdict == PARTLY
        and "15 CPUs are taken" in rows["quota team, requests.cpu"].seen
    )
    assert rows["retries"].seen == "a step that failed is tried again, a pod that was deleted is not"
    assert rows_of({}, TWO_NODES, tmp_path)["TrainJobs"].verdict == SHORT


def test_the_right_to_read_the_clusters_runtimes_is_asked_for_where_the_namespace_has_none(tmp_path: Path) -> None:
    what = "rights of launchers, account pipeline-runner"
    only = {**MORE_GPUS, **TRAINER_2, REVIEWS: no_cluster_runtimes}
    own: Paths = {f"{TRAINER}/namespaces/street/trainingruntimes/torch-distributed": {}}
    assert rows_of(only, TWO_NODES, tmp_path)[what].verdict == SHORT
    assert rows_of({**only, **own}, TWO_NODES, tmp_path)[what].verdict == HOLDS


@pytest.mark.parametrize(
    ("hard", "spec", "falls"),
    [
        ({"requests.cpu": "1"}, {"scopes": ["NotBestEffort", "Terminating"]}, ["steps without GPUs"]),
        ({"requests.cpu": "1"}, {"scopes": ["NotTerminating"]}, ["nodes of a TrainJob (train)"]),
        ({"requests.cpu": "1"}, {"scopes": ["BestEffort"]}, []),
        ({"requests.cpu": "1"}, {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass"}]}}, []),
        ({"pods": "0"}, {}, ["steps without GPUs"]),
        ({"count/pods": "1"}, {}, ["nodes of a TrainJob (train)"]),
        ({"requests.ephemeral-storage": "1Gi", "limits.ephemeral-storage": "0"}, {}, []),  # who says none, takes none
    ],
)
def test_a_quota_counts_the_pods_that_its_scopes_are_about(
    hard: dict[str, str], spec: dict[str, Any], falls: list[str]
) -> None:
    quota_ = {"metadata": {"name": "team"}, "spec": spec, "status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
    hardware = settings(TWO_NODES).hardware
    rows = capacity_rows(Seen("street", {"quotas": {"items": [quota_]}}), asked_by(hardware, ["train"]), None)
    short = [row for row in rows if row.what.startswith("quota") and row.verdict == SHORT]
    assert [row.seen.partition(" ask ")[0] for row in short] == falls and all(row.todo for row in short)
    assert falls or Row("quotas", HOLDS, "none is in the way") in rows


def test_a_kubeconfig_of_a_cluster_without_kfp_is_one_row_while_kfp_answers(tmp_path: Path) -> None:
    class Kfp(Handler):
        def do_GET(self) -> None:
            self.answer_json({"tag_name": "2.17.0"})

    elsewhere = {SERVER: None, "/apis/argoproj.io": None, HERE: None, NODES: {"items": [node("other", cpu="1")]}}
    with serving(Kfp) as endpoint, api_server(made(elsewhere), tmp_path):
        rows = checkup(None, "street", endpoint)
        assert [(row.what, row.verdict) for row in rows] == [("Kubernetes", NOT_SEEN), ("KFP", HOLDS)]
        assert rows[0].seen == "the kubeconfig's cluster has no KFP" and len(require_fit(rows)) == 1
        short = checkup(None, "street", "http://127.0.0.1:9")  # where nothing answers, this may be its cluster
    with pytest.raises(ConfigError, match="if KUBECONFIG is another cluster's.* DOCTOR=0, --no-doctor$"):
        require_fit(short)


def test_only_a_backbone_may_look_like_an_id_of_the_hub(tmp_path: Path) -> None:
    values = {
        "data": {"data_root": "data/images"},
        "model": {"backbone_id": "owner/vit"},
        "export": {"policy": "sweep"},
        "split": {"previous": "runs/may"},
    }
    rows = checkup(config.parse(config.Config, values), "street")
    assert {row.what for row in rows if row.verdict == PARTLY} == {"data.data_root", "split.previous"}


def test_kubelets_that_do_not_answer_are_asked_at_once_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.6)
    stop = threading.Event()
    names = [f"n{number}" for number in range(30)]
    silent = {f"{NODES}/{name}/proxy/stats/summary": lambda _: stop.wait(20) and 404 for name in names}
    with api_server(made({NODES: {"items": list(map(node, names))}, **silent}), tmp_path) as asked:
        started = time.monotonic()
        seen = cluster.look("street", settings().hardware, "")
        took = time.monotonic() - started
        stop.set()
    assert took < 2 and sum("proxy/stats" in path for path, _, _ in asked) > 1
    assert seen["disk n0"] == seen["disk n19"] == Unseen("no answer in 0.6 s") and seen["disk n20"] != seen["disk n0"]


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[Path]:
    with api_server(made({}), tmp_path):
        pass  # its port is free again
    yield tmp_path


def test_an_api_server_that_does_not_answer_is_one_row_and_blocks_nothing(nobody: Path) -> None:
    kubernetes, kfp = (row for row in checkup(settings(), "street") if row.what != "disk")
    assert kubernetes.verdict == kfp.verdict == NOT_SEEN and "cannot be asked" in kubernetes.seen
    assert len(require_fit([kubernetes, kfp])) == 2
    (nobody / "kubeconfig").unlink()
    assert f"KUBECONFIG names {nobody / 'kubeconfig'}, which is no file" in checkup(None)[0].seen


def test_the_table_is_columns_without_secrets_and_what_falls_short_stops_a_submission(nobody: Path) -> None:
    result = CliRunner().invoke(cli.app, ["doctor", "--cluster", "--endpoint", "http://user:word@127.0.0.1:9"])
    assert result.exit_code == 0, result.output
    kubernetes, kfp = result.output.splitlines()
    assert kubernetes.startswith("not seen     Kubernetes  the API server") and "secret-token" not in result.output
    assert kfp.startswith("falls short  KFP         nothing answers") and "word@" not in result.output
    with pytest.raises(
        ConfigError, match="^the cluster falls short: KFP  ?nothing answers at its address: KFP_ENDPOINT"
    ):
        require_fit(checkup(None, endpoint="http://127.0.0.1:9"))


@pytest.mark.parametrize("odd", [{}, {"items": None}, {"items": [None, {}]}, {"spec": []}])
def test_what_is_no_answer_of_kubernetes_is_not_seen_and_no_traceback(tmp_path: Path, odd: JsonDict) -> None:
    class Odd(Handler):
        def do_GET(self) -> None:
            self.answer_json(odd)

        do_POST = do_GET

    with serving(Odd) as url:
        write_kubeconfig(tmp_path, url)
        rows = checkup(settings({"num_nodes": 2, "shared_root": "gs://street/nodes"}), "street")
    assert {"Kubernetes", "KFP", "retries"} <= {row.what for row in rows}


def test_a_server_that_never_answers_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write_kubeconfig(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        (kubernetes, *_) = checkup(None)
    assert kubernetes.verdict == NOT_SEEN and "Read timed out" in kubernetes.seen
