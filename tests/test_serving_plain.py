"""The manifests of a service without KServe: what they select, ask and allow is what natix is."""

import os
from typing import Any

import pytest
import typer

from manifests import validate
from manifests.validate import HARDENED, Manifest
from natix_lib.cli import app
from natix_lib.serving.server import LAST_SECONDS, STOP_SECONDS

FOLDER = validate.HERE / "serving-plain"


@pytest.fixture(scope="module")
def plain() -> dict[str, Manifest]:
    """The resources by kind, one of each."""
    try:
        rendered = validate.render(FOLDER)
    except validate.KubectlError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    by_kind = {each["kind"]: each for each in rendered}
    assert len(by_kind) == len(rendered)
    return by_kind


@pytest.fixture
def pod(plain: dict[str, Manifest]) -> Manifest:
    spec: Manifest = plain["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def arguments(pod: Manifest) -> dict[str, Any]:
    """What the command line makes of the container's arguments."""
    commands: Any = typer.main.get_command(app)
    (container,) = pod["containers"]
    assert container["command"] == ["python3", "-m", "natix_lib.cli"]
    name, *rest = [argument.replace("BUCKET", "bucket") for argument in container["args"]]  # to be put in
    assert name == "serve"
    parsed: dict[str, Any] = commands.commands[name].make_context(name, list(rest)).params
    return parsed


def test_the_folder_passes_alone_and_is_one_of_those_that_are_checked(plain: dict[str, Manifest]) -> None:
    assert FOLDER in validate.folders()
    for manifest in plain.values():
        validate.check(manifest)
        assert "natix-serving-plain" in (manifest["metadata"].get("namespace"), manifest["metadata"]["name"])


def test_the_probes_ask_what_is_answered_where_it_listens(pod: Manifest, arguments: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    port = arguments["port"]
    assert arguments["host"] == "0.0.0.0" and port == container["ports"][0]["containerPort"]
    assert container["readinessProbe"]["httpGet"] == {"path": f"/v1/models/{arguments['name']}", "port": port}
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": port}


def test_the_service_and_the_policies_are_of_its_pods_and_its_port(
    plain: dict[str, Manifest], pod: Manifest, arguments: dict[str, Any]
) -> None:
    labels = plain["Deployment"]["spec"]["template"]["metadata"]["labels"]
    spread = pod["topologySpreadConstraints"][0]["labelSelector"]
    policy, budget = plain["NetworkPolicy"]["spec"], plain["PodDisruptionBudget"]["spec"]
    for selector in (plain["Deployment"]["spec"]["selector"], spread, policy["podSelector"], budget["selector"]):
        assert selector == {"matchLabels": labels}
    service = plain["Service"]["spec"]
    assert service["selector"] == labels and service["ports"][0]["targetPort"] == arguments["port"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == [arguments["port"]]
    assert all(rule["ports"] for rule in policy["egress"])
    assert plain["ServiceAccount"]["metadata"]["name"] == pod["serviceAccountName"]


def test_the_grace_is_longer_than_the_end(pod: Manifest, arguments: dict[str, Any]) -> None:
    assert pod["terminationGracePeriodSeconds"] > arguments["drain"] + LAST_SECONDS + STOP_SECONDS + 2


def test_the_autoscaler_alone_says_how_many_there_are_and_one_may_always_go(plain: dict[str, Manifest]) -> None:
    deployment, scaler = plain["Deployment"], plain["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": deployment["metadata"]["name"]
    }  # fmt: skip
    assert "replicas" not in deployment["spec"]
    assert plain["PodDisruptionBudget"]["spec"]["maxUnavailable"] < scaler["minReplicas"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_the_pod_is_restricted_and_writes_to_tmp_alone_as_the_user_of_the_images(
    plain: dict[str, Manifest], pod: Manifest
) -> None:
    assert plain["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    (container,) = pod["containers"]
    assert container["securityContext"] == HARDENED
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
    user, group = pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]
    assert f"USER {user}:{group}" in (validate.HERE.parent / "images" / "Dockerfile").read_text()
    assert "@sha256:" in container["image"]
    threads = {each["name"]: each["value"] for each in container["env"]}["OMP_NUM_THREADS"]
    assert threads == container["resources"]["limits"]["cpu"]


def test_on_gke_its_account_is_the_reader_of_the_bucket_and_its_image_has_one_name(plain: dict[str, Manifest]) -> None:
    on_gke = {each["kind"]: each for each in validate.render(validate.HERE / "overlays" / "gke-serving-plain")}
    assert on_gke.keys() == plain.keys()
    account, pod = on_gke["ServiceAccount"]["metadata"], on_gke["Deployment"]["spec"]["template"]["spec"]
    assert account["name"] == pod["serviceAccountName"]
    assert account["annotations"]["iam.gke.io/gcp-service-account"].startswith("natix-reader@")
    assert pod["containers"][0]["image"].startswith("REGION-docker.pkg.dev/PROJECT_ID/natix/natix-cpu@sha256:")
    guide = (validate.HERE.parent / "docs" / "deploy.md").read_text()
    assert f"svc.id.goog[{account['namespace']}/{account['name']}]" in guide


def test_it_stands_beside_kserves(plain: dict[str, Manifest]) -> None:
    beside = {each["metadata"].get("namespace") for each in validate.render(validate.HERE / "serving")}
    assert plain["Deployment"]["metadata"]["namespace"] not in beside
