"""`make manifests`: render what can be applied with `kubectl kustomize`, refuse what a cluster would ignore or regret.

What can be applied is every folder with a Kustomization, an overlay or not: whoever sees one applies it. The other
folders are Components, which alone give nothing or do not render.

A cluster drops an unknown field of many resources without a word, and takes any text for the name of a node label, a
resource or an annotation; a typo there shows hours later as a pod that is never scheduled or may not read its bucket.
So three things are checked, without a cluster: fields, strictly, by kubernetes-validate for what Kubernetes defines and
by `crds.yaml` for the rest; names, against the few that this project uses; and safety: no Secret, no wildcard, no
container that is root or can write to its image. A name that is missing here is a typo or a thing to look up and add.
"""

import argparse
import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

HERE = Path(__file__).parent
KUBERNETES = "1.33"  # whose fields are known; newer ones are refused until this is raised
OLDEST_KUBECTL = (1, 21)  # its kustomize is the first with components
RESOURCES = {"cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"}
NODE_LABELS = {
    "cloud.google.com/gke-accelerator",
    "cloud.google.com/gke-nodepool",
    "cloud.google.com/gke-spot",
    "kubernetes.io/arch",
    "kubernetes.io/os",
}
ANNOTATIONS = {
    "cnrm.cloud.google.com/project-id",
    "iam.gke.io/gcp-service-account",
    "serving.kserve.io/deploymentMode",
}
LABELS = {"app.kubernetes.io/name", *(f"pod-security.kubernetes.io/{mode}" for mode in ("enforce", "warn", "audit"))}
READ_VERBS, TRAINJOB_VERBS = {"get", "list"}, {"create", "get", "patch", "delete"}
HARDENED = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

Manifest = dict[str, Any]


class ManifestError(Exception):
    """A manifest that must not reach a cluster, in one line."""


class KubectlError(ManifestError):
    """There is no kubectl that can render the tree."""


def folders(kind: str = "Kustomization") -> list[Path]:
    """The folders that can be applied, or the Components."""
    files = sorted(HERE.rglob("kustomization.yaml"))
    return [path.parent for path in files if yaml.safe_load(path.read_text(encoding="utf-8"))["kind"] == kind]


def render(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send to a cluster.

    Raises:
        KubectlError: If kubectl is missing or too old.
        ManifestError: If the folder does not render.
    """
    done = subprocess.run([_kubectl(), "kustomize", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise ManifestError(f"{folder.name}: {done.stderr.strip().splitlines()[-1]}")
    if done.stderr.strip():  # a deprecated field; the next kubectl would refuse it
        raise ManifestError(f"{folder.name}: {done.stderr.strip().splitlines()[0]}")
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


@cache
def _kubectl() -> str:
    path = shutil.which("kubectl")
    needed = f"kubectl {'.'.join(map(str, OLDEST_KUBECTL))} or newer is needed"
    if path is None:
        raise KubectlError(f"{needed}, none was found")
    done = subprocess.run([path, "version", "--client", "--output=json"], capture_output=True, text=True, check=True)
    version = json.loads(done.stdout)["clientVersion"]["gitVersion"]
    match = re.match(r"v(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) < OLDEST_KUBECTL:
        raise KubectlError(f"{needed}, {path} is {version} (so is Debian 12's package kubernetes-client)")
    return path


def check(manifest: Manifest) -> None:
    """Refuse a manifest that has an unknown field or name, or is unsafe.

    Raises:
        ManifestError: Naming the manifest, the place and the value.
    """
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    try:
        _check_fields(manifest)
    except jsonschema.ValidationError as error:
        place = ".".join(map(str, error.absolute_path)) or "the manifest"
        raise ManifestError(f"{name}: {place}: {error.message.splitlines()[0]}") from error
    for keys, value in _objects(manifest):
        for what, names, known in (
            ("resource", set(value) if keys[-1] in ("requests", "limits") else set(), RESOURCES),
            ("resource", {key.removeprefix("requests.") for key in value} if keys[-1] == "hard" else set(), RESOURCES),
            ("node label", set(value) if keys[-1] == "nodeSelector" else set(), NODE_LABELS),
            ("annotation", set(value) if keys[-1] == "annotations" else set(), ANNOTATIONS),
            ("label", set(value) if keys[-1] == "labels" else set(), LABELS),
        ):
            if unknown := sorted(names - known):
                raise ManifestError(f"{name}: {'.'.join(keys)}: unknown {what} {unknown[0]}")
    _check_safety(name, manifest)


def containers(manifest: Manifest) -> list[Manifest]:
    """Every container of a manifest, wherever it stands."""
    return [
        container
        for _, value in _objects(manifest)
        for key in ("containers", "initContainers", "ephemeralContainers")
        for container in value.get(key, [])
    ]


def _objects(value: Any, place: tuple[str, ...] = ("",)) -> Iterator[tuple[tuple[str, ...], Manifest]]:
    """Every object inside a manifest with the keys that lead to it."""
    if isinstance(value, dict):
        yield place, value
        for key, child in value.items():
            yield from _objects(child, (*place, key))
    elif isinstance(value, list):
        for child in value:
            yield from _objects(child, (*place[:-1], f"{place[-1]}[]"))


def _check_safety(name: str, manifest: Manifest) -> None:
    if manifest["kind"] == "Secret":
        raise ManifestError(f"{name}: a secret must not stand in the tree, make it with kubectl create secret")
    for rule in manifest.get("rules", []):
        if wild := [key for key, values in rule.items() if "*" in values]:
            raise ManifestError(f"{name}: rules must name what they allow, {wild[0]} has a *")
        resources = rule.get("resources", [])
        allowed = TRAINJOB_VERBS if resources == ["trainjobs"] else READ_VERBS
        if more := sorted(set(rule["verbs"]) - allowed):
            raise ManifestError(f"{name}: {', '.join(resources)} may have {sorted(allowed)}, got {more[0]}")
    for subject in manifest.get("subjects", []):
        if subject["kind"] == "ServiceAccount" and not subject.get("namespace"):
            raise ManifestError(f"{name}: subjects: the account {subject['name']} must have its namespace")
    for container in containers(manifest):
        context = container.get("securityContext", {})
        for key, required in HARDENED.items():
            if context.get(key) != required:
                raise ManifestError(
                    f"{name}: container {container['name']}: securityContext.{key} must be {json.dumps(required)}, "
                    f"got {json.dumps(context.get(key))}"
                )


def _check_fields(manifest: Manifest) -> None:
    schemas = _schemas()
    type_name = f"{manifest['apiVersion']}/{manifest['kind']}"
    if type_name in schemas:
        schemas[type_name].validate(manifest)
    else:
        try:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        except kubernetes_validate.SchemaNotFoundError as error:
            raise ManifestError(f"{type_name} is unknown: add its fields to crds.yaml") from error
    if manifest["kind"] == "ConfigMap" and manifest["metadata"]["name"] == "kfp-launcher":
        if unknown := sorted(set(manifest["data"]) - {"defaultPipelineRoot", "providers"}):
            raise ManifestError(f"ConfigMap kfp-launcher: data: unknown key {unknown[0]}")
        schemas["kfp-launcher/providers"].validate(yaml.safe_load(manifest["data"]["providers"]))


@cache
def _schemas() -> dict[str, jsonschema.Draft202012Validator]:
    package = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    definitions = json.loads((package / f"v{KUBERNETES}.0-local-strict" / "_definitions.json").read_text())["$defs"]
    schemas = {}
    for type_name, text in yaml.safe_load((HERE / "crds.yaml").read_text(encoding="utf-8")).items():
        schema = copy.deepcopy(text)
        if "spec" in schema:
            metadata = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
            fields = {"apiVersion": {}, "kind": {}, "metadata": metadata, "spec": schema["spec"]}
            schema = {"required": ["metadata", "spec"], "properties": fields}
        _close(schema, definitions)
        schemas[type_name] = jsonschema.Draft202012Validator({**schema, "$defs": definitions})
    return schemas


def _close(schema: Any, definitions: Manifest) -> None:
    """Add the fields of inlined types, and refuse all others, at every level."""
    if isinstance(schema, dict):
        inlined = definitions[schema.pop("x-inline")]["properties"] if "x-inline" in schema else {}
        if isinstance(schema.get("properties"), dict):
            for child in schema["properties"].values():
                _close(child, definitions)
            schema["properties"] = {**inlined, **schema["properties"]}
            schema |= {"type": "object", "additionalProperties": False}
        if "items" in schema:
            _close(schema["items"], definitions)


def main() -> None:
    """Write OUTPUT/<folder>.yaml for each folder that passes; exit 2 with one line for each that does not."""
    parser = argparse.ArgumentParser(description="Render and check the manifests.")
    parser.add_argument("--output", type=Path, default=Path("build/manifests"))
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    failed = False
    for folder in folders():
        try:
            manifests = render(folder)
            for manifest in manifests:
                check(manifest)
        except KubectlError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except ManifestError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
            continue
        path = output / f"{folder.name}.yaml"
        path.write_text(yaml.safe_dump_all(manifests, sort_keys=False), encoding="utf-8")
        print(f"{path}  {len(manifests)} resources")
    if failed:
        sys.exit(2)


if __name__ == "__main__":
    main()
