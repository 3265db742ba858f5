"""The cluster's manifests: every folder renders and passes, alone and in overlays, and mistakes need no cluster."""

import copy
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from manifests import validate
from manifests.validate import Manifest, ManifestError
from natix_lib import config
from natix_lib.cli import app
from natix_lib.config.hardware import Hardware
from natix_lib.survey import pods
from natix_lib.survey.cluster import OF_LAUNCHERS

ROOT = Path(__file__).parent.parent
FOLDERS = validate.folders()


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Manifest]]:
    """The resources of each folder that can be applied."""
    try:
        return {folder.name: validate.render(folder) for folder in FOLDERS}
    except validate.KubectlError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture
def find(rendered: dict[str, list[Manifest]]) -> Callable[..., Manifest]:
    """A copy of the one resource of an overlay that has a kind and a name."""

    def find(overlay: str, kind: str, name: str | None = None) -> Manifest:
        (match,) = (
            each for each in rendered[overlay] if each["kind"] == kind and name in (None, each["metadata"]["name"])
        )
        return copy.deepcopy(match)

    return find


@pytest.fixture
def server(find: Callable[..., Manifest]) -> Manifest:
    """The container that serves a bundle."""
    (container,) = find("gke-serving", "ServingRuntime")["spec"]["containers"]
    return container


def test_the_server_listens_for_others_and_its_probes_ask_what_it_answers(server: Manifest) -> None:
    args = dict(itertools.pairwise(server["args"]))
    assert args["--host"] == "0.0.0.0" and args["--port"] == "8080"
    assert server["readinessProbe"]["httpGet"] == {"path": f"/v1/models/{args['--name']}", "port": 8080}
    assert server["livenessProbe"]["httpGet"] == server["startupProbe"]["httpGet"] == {"path": "/healthz", "port": 8080}


@pytest.mark.parametrize("name", [folder.name for folder in FOLDERS])
def test_every_folder_that_can_be_applied_renders_and_passes_alone(
    name: str, rendered: dict[str, list[Manifest]]
) -> None:
    assert rendered[name]
    for manifest in rendered[name]:
        validate.check(manifest)


@pytest.mark.parametrize("folder", validate.folders("Component"), ids=lambda folder: folder.name)
def test_a_component_alone_gives_nothing(folder: Path, rendered: dict[str, list[Manifest]]) -> None:
    try:
        assert validate.render(folder) == []
    except ManifestError as error:
        assert "no matches for Id" in str(error)


def test_argos_retries_are_set_beside_what_kfp_has_there(tmp_path: Path, rendered: dict[str, list[Manifest]]) -> None:
    retries = validate.HERE / "components" / "retries"
    defaults = {"spec": {"templateDefaults": {"retryStrategy": {"limit": "2", "retryPolicy": "OnError"}}}}
    kfp = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "workflow-controller-configmap", "namespace": "kubeflow"},
        "data": {"artifactRepository": "archiveLogs: true", "workflowDefaults": yaml.safe_dump(defaults)},
    }
    (tmp_path / "kfp.yaml").write_text(yaml.safe_dump(kfp))
    overlay = {"resources": ["kfp.yaml"], "components": [os.path.relpath(retries, tmp_path.resolve())]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    (patched,) = validate.render(tmp_path)
    validate.check(patched)
    strategy = yaml.safe_load(patched["data"].pop("workflowDefaults"))["spec"]["templateDefaults"]["retryStrategy"]
    assert strategy == {"limit": "0", "retryPolicy": "Always"} and patched["data"] == {
        "artifactRepository": "archiveLogs: true"
    }
    files = ["--filename", str(tmp_path / "kfp.yaml"), "--patch-file", str(retries / "patch.yaml")]
    done = subprocess.run(
        ["kubectl", "patch", "--local", *files, "--output=yaml"], capture_output=True, text=True, check=True
    )
    assert yaml.safe_load(yaml.safe_load(done.stdout)["data"]["workflowDefaults"]) == {
        "spec": {"templateDefaults": {"retryStrategy": strategy}}
    }


def test_every_file_of_the_tree_is_in_an_overlay(rendered: dict[str, list[Manifest]]) -> None:
    used = {(each["kind"], each["metadata"]["name"]) for resources in rendered.values() for each in resources}
    for path in validate.HERE.rglob("*.yaml"):
        if path.name in ("kustomization.yaml", "crds.yaml", "patch.yaml"):
            continue
        for each in yaml.safe_load_all(path.read_text()):
            assert (each["kind"], each["metadata"]["name"]) in used, path


def put(manifest: Manifest, place: str, value: Any) -> None:
    """Set a value inside a manifest; a number in the place is an index."""
    *way, last = (int(part) if part.isdigit() else part for part in place.split("/"))
    inner: Any = manifest
    for part in way:
        inner = inner[part]
    inner[last] = value


@pytest.mark.parametrize(
    ("overlay", "kind", "place", "value", "message"),
    [
        ("gke", "ResourceQuota", "spec/hard", {"requests.nvidia.com/gpus": "8"}, "unknown resource nvidia.com/gpus"),
        ("gke", "ResourceQuota", "spec/hards", {}, "'hards' was unexpected"),
        ("gke", "NetworkPolicy", "spec/egres", [], "'egres' was unexpected"),
        ("gke", "NetworkPolicy", "spec/egress/0/ports/0/prot", 53, "spec.egress.0.ports.0.*'prot' was unexpected"),
        ("gke", "ServiceAccount", "metadata/annotations", {"iam.gke.io/gcp-service-acount": "a@b"}, "unknown annot"),
        ("gke", "Namespace", "metadata/labels", {"pod-security.kubernetes.io/enforced": "baseline"}, "unknown label"),
        ("gke", "ConfigMap", "data/defaultPipelineroot", "gs://b", "unknown key defaultPipelineroot"),
        ("s3", "ConfigMap", "data/providers", "s3: {default: {endpoint: a, credentials: {fromEnvs: 1}}}", "fromEnvs"),
        ("s3", "ConfigMap", "data/providers", "s3: {default: {endpoint: 'http://a', credentials: {}}}", "http://a"),
        ("gke-serving", "ServingRuntime", "spec/nodeSelector", {"cloud.google.com/gke-acelerator": "x"}, "node label"),
        ("gke-serving", "ServingRuntime", "spec/container", [], "'container' was unexpected"),
        ("gke-serving", "ServingRuntime", "spec/containers/0/imagePullPolic", "Always", "'imagePullPolic' was unexp"),
        ("gke-serving", "ServingRuntime", "spec/containers/0/resources/limits/cpus", "2", "unknown resource cpus"),
        ("gke-serving", "ServingRuntime", "spec/supportedModelFormats/0/autoselect", True, "'autoselect' was unexp"),
        ("gke-serving", "InferenceService", "spec/predictor/minReplica", 1, "'minReplica' was unexpected"),
        ("gke-serving", "InferenceService", "spec/predictor/model/storageURI", "gs://a", "'storageURI' was unexpected"),
        ("gke-serving", "InferenceService", "spec/predictor/model/storageUri", "bundle", "does not match"),
        ("gke-serving", "InferenceService", "spec/predictor/securityContext/fsGroups", 1, "'fsGroups' was unexpected"),
        ("gke-serving", "InferenceService", "apiVersion", "serving.kserve.io/v1", "unknown: add its fields"),
        ("vertex", "StorageBucket", "spec/uniformBucketLevelAcces", True, "'uniformBucketLevelAcces' was unexpected"),
        ("vertex", "SecretManagerSecret", "spec/replication", {"automatically": {}}, "'automatically' was unexpected"),
    ],
)
def test_a_typo_is_refused_by_name(
    overlay: str, kind: str, place: str, value: Any, message: str, find: Callable[..., Manifest]
) -> None:
    name = "natix-steps" if kind == "NetworkPolicy" else None
    manifest = find(overlay, kind, name)
    validate.check(manifest)
    put(manifest, place, value)
    with pytest.raises(ManifestError, match=message):
        validate.check(manifest)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("runAsNonRoot", False),
        ("readOnlyRootFilesystem", False),
        ("allowPrivilegeEscalation", True),
        ("capabilities", {"drop": ["NET_RAW"]}),
        ("seccompProfile", {"type": "Unconfined"}),
    ],
)
def test_a_container_that_could_do_more_is_refused(key: str, value: Any, find: Callable[..., Manifest]) -> None:
    manifest = find("gke-serving", "ServingRuntime")
    put(manifest, f"spec/containers/0/securityContext/{key}", value)
    with pytest.raises(ManifestError, match=f"kserve-container: securityContext.{key} must be"):
        validate.check(manifest)


def test_a_container_of_a_pod_is_checked_as_well() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "b"}]}}
    with pytest.raises(ManifestError, match="Pod a: container b: securityContext.runAsNonRoot must be true, got null"):
        validate.check(pod)


def test_a_server_writes_to_tmp_alone_as_the_user_of_the_images(server: Manifest) -> None:
    assert [mount["mountPath"] for mount in server["volumeMounts"]] == ["/tmp"]
    user = server["securityContext"]["runAsUser"]
    assert f"USER {user}:{server['securityContext']['runAsGroup']}" in (ROOT / "images" / "Dockerfile").read_text()


def test_no_secret_stands_in_the_tree(rendered: dict[str, list[Manifest]]) -> None:
    kinds = {each["kind"] for resources in rendered.values() for each in resources}
    assert not kinds & {"Secret", "SealedSecret"}
    for path in validate.HERE.rglob("*.yaml"):
        text = path.read_text()
        assert "secretGenerator" not in text and "stringData" not in text
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf-token"}, "stringData": {"token": "hf_a"}}
    with pytest.raises(ManifestError, match="Secret hf-token: a secret must not stand in the tree"):
        validate.check(secret)


def test_steps_may_make_trainjobs_and_otherwise_only_read(rendered: dict[str, list[Manifest]]) -> None:
    names = {
        (group, resource): set(rule["verbs"])
        for resources in rendered.values()
        for each in resources
        for rule in each.get("rules", [])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert names == {
        ("trainer.kubeflow.org", "trainjobs"): {"create", "get", "patch", "delete"},
        ("trainer.kubeflow.org", "trainingruntimes"): {"get"},
        ("trainer.kubeflow.org", "clustertrainingruntimes"): {"get"},
        ("", "pods"): {"get", "list"},
        ("", "pods/log"): {"get"},
        ("", "configmaps"): {"get"},
    }
    assert not any(each.get("rules") for name in ("gke", "s3", "gke-serving") for each in rendered[name])


def test_doctor_asks_for_the_rights_that_the_overlay_of_several_nodes_gives(
    rendered: dict[str, list[Manifest]],
) -> None:
    given = {
        (verb, group, *resource.partition("/")[::2], name, each["kind"] == "ClusterRole")
        for each in rendered["standalone-multi-node"]
        for rule in each.get("rules", [])
        for verb, group, resource, name in itertools.product(
            rule["verbs"], rule["apiGroups"], rule["resources"], rule.get("resourceNames", [""])
        )
    }
    asked = {
        (right.verb, right.group, right.resource, right.subresource, right.name, right.everywhere)
        for right in OF_LAUNCHERS
    }
    assert asked == given


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("rules/0/verbs", ["*"], r"rules must name what they allow, verbs has a \*"),
        ("rules/0/resources", ["*"], r"resources has a \*"),
        ("rules/0/verbs", ["create", "update"], "trainjobs may have .*, got update"),
        ("rules/2/verbs", ["list", "delete"], "pods may have .*, got delete"),
    ],
)
def test_a_role_that_allows_more_is_refused(
    place: str, value: Any, message: str, find: Callable[..., Manifest]
) -> None:
    role = find("gke-multi-node", "Role")
    put(role, place, value)
    with pytest.raises(ManifestError, match=message):
        validate.check(role)


def test_names_agree_with_the_config_and_the_targets(find: Callable[..., Manifest]) -> None:
    hardware = Hardware()
    account = find("gke", "ServiceAccount")["metadata"]
    assert account["name"] == hardware.service_account
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        assert find("gke-multi-node", kind)["subjects"] == [
            {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
        ]
    assert find("gke", "ResourceQuota")["spec"]["hard"].keys() == {f"requests.{pods.GPU_RESOURCE}"}
    assert pods.GPU_RESOURCE in validate.RESOURCES
    assert pods.GPU_NODE_LABEL in validate.NODE_LABELS
    assert find("vertex", "SecretManagerSecret")["metadata"]["name"] == hardware.hf_token_secret
    guide = (ROOT / "docs" / "deploy.md").read_text()
    assert f"create secret generic {hardware.hf_token_secret} --from-literal=token=" in guide


def test_what_the_policies_select_are_the_pods_that_are_meant(find: Callable[..., Manifest]) -> None:
    selectors = {
        ("gke", "natix-steps"): {"matchLabels": {"pipelines.kubeflow.org/v2_component": "true"}},
        ("s3", "natix-object-store"): {"matchLabels": {"pipelines.kubeflow.org/v2_component": "true"}},
        ("gke-multi-node", "natix-nodes"): {
            "matchExpressions": [{"key": "jobset.sigs.k8s.io/jobset-name", "operator": "Exists"}]
        },
        ("gke-serving", "natix-serving"): {
            "matchLabels": {
                "serving.kserve.io/inferenceservice": find("gke-serving", "InferenceService")["metadata"]["name"]
            }
        },
    }
    for (overlay, name), selector in selectors.items():
        assert find(overlay, "NetworkPolicy", name)["spec"]["podSelector"] == selector
    steps = find("gke", "NetworkPolicy", "natix-steps")["spec"]
    assert steps["ingress"] == [] and steps["policyTypes"] == ["Ingress", "Egress"]
    for rule in steps["egress"]:
        assert rule["ports"], "nothing is open on all ports"


@pytest.mark.parametrize("overlay", ["gke", "gke-multi-node", "gke-serving", "gke-serving-plain"])
def test_on_gke_every_pod_of_ours_reaches_the_metadata_server_once(
    overlay: str, rendered: dict[str, list[Manifest]]
) -> None:
    for policy in (each for each in rendered[overlay] if each["kind"] == "NetworkPolicy"):
        peers = [peer for rule in policy["spec"]["egress"] for peer in rule.get("to", []) if "ipBlock" in peer]
        assert [peer["ipBlock"]["cidr"] for peer in peers] == ["169.254.169.252/32", "169.254.169.254/32"]


def test_any_kubernetes_takes_twelve_commands_at_most_and_a_config_that_is_taken() -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text().partition("## Any Kubernetes")[2].partition("\n## 1.")[0]
    commands = re.findall(r"```\n(.*?)```", guide, re.DOTALL)[0].splitlines()
    assert 1 < len(commands) <= 12
    for folder in re.findall(r"kubectl apply -k (manifests/\S+)", guide):
        assert ROOT / folder in FOLDERS
    (text,) = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    values = {"model": {"backbone_id": "owner/vit"}, "export": {"policy": "sweep"}, **yaml.safe_load(text)}
    assert config.parse(config.Config, values).hardware.volumes[0].holds("/data/street")


def test_another_namespace_is_one_line(tmp_path: Path, rendered: dict[str, list[Manifest]]) -> None:
    gke = os.path.relpath(validate.HERE / "overlays" / "gke-multi-node", tmp_path.resolve())
    guide = (ROOT / "docs" / "deploy.md").read_text()
    (overlay,) = re.findall(r"```yaml\n(# my/kustomization.yaml\n.*?)```", guide, re.DOTALL)
    (tmp_path / "kustomization.yaml").write_text(overlay.replace("../manifests/overlays/gke-multi-node", gke))
    moved = validate.render(tmp_path)
    assert {each["kind"] for each in moved} == {each["kind"] for each in rendered["gke-multi-node"]} - {"Namespace"}
    for each in moved:
        validate.check(each)
        assert each["metadata"].get("namespace") == (None if each["kind"].startswith("Cluster") else "team-a")
        for subject in each.get("subjects", []):
            assert (subject["name"], subject["namespace"]) == ("default-editor", "team-a")


def test_the_image_of_a_server_is_named_by_digest(server: Manifest) -> None:
    assert re.search(r"/natix-cpu@sha256:[0-9a-f]{64}$", server["image"])


def test_the_server_is_started_as_the_command_line_wants_it(server: Manifest, find: Callable[..., Manifest]) -> None:
    commands: Any = typer.main.get_command(app)
    name, *arguments = server["args"]
    if name not in commands.commands:
        pytest.skip(f"natix {name} does not exist yet")
    assert server["command"] == ["python3", "-m", "natix_lib.cli"]
    parsed = commands.commands[name].make_context(name, list(arguments)).params
    assert str(parsed["bundle"]) == "/mnt/models"  # where KServe puts what storageUri names
    assert parsed["port"] == server["ports"][0]["containerPort"]
    model = find("gke-serving", "InferenceService")["spec"]["predictor"]["model"]
    assert parsed["name"] == model["runtime"] == "natix"
    assert server["readinessProbe"]["httpGet"] == {"path": f"/v1/models/{parsed['name']}", "port": parsed["port"]}


@pytest.mark.slow
def test_make_manifests_writes_what_passes(tmp_path: Path, rendered: dict[str, list[Manifest]]) -> None:
    command = [sys.executable, "-m", "manifests.validate", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(rendered)
    assert len(done.stdout.splitlines()) == len(rendered)


@pytest.mark.parametrize(("version", "message"), [(None, "none was found"), ("v1.20.2", r"kubectl is v1\.20\.2")])
def test_an_old_or_missing_kubectl_is_named_in_one_line(tmp_path: Path, version: str | None, message: str) -> None:
    if version:
        kubectl = tmp_path / "kubectl"
        kubectl.write_text(f"""#!/bin/sh\necho '{{"clientVersion": {{"gitVersion": "{version}"}}}}'\n""")
        kubectl.chmod(0o755)
    command = [sys.executable, "-m", "manifests.validate", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert done.returncode == 2
    assert re.fullmatch(rf"error: kubectl 1\.21 or newer is needed, .*{message}.*\n", done.stderr)
