"""Whether a cluster can hold a run: what was seen of it, judged against the config, as rows of one table.

Judging takes objects as the API server gives them and asks nothing itself, so that a cluster can be made of a few
dicts. What a server that is too old refuses stands with the key that needs it, never by itself: most of natix runs on
KFP 2.14.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import yaml

from natix_lib.config.hardware import Hardware, Volume
from natix_lib.files import JsonDict
from natix_lib.survey.capacity import asked_by, capacity_rows
from natix_lib.survey.cluster import CLUSTER_RUNTIMES, KFP_NAMESPACE, OF_LAUNCHERS, OF_STEPS, Right, Seen, Unseen
from natix_lib.survey.verdicts import HOLDS, NOT_SEEN, PARTLY, SHORT, Row

Version = tuple[int, int]
TITLES: Version = (2, 14)  # the first KFP that finds what a task with a title has made
CONTEXTS: Version = (2, 17)  # the first that takes a security context
DEFAULT_ROOT = "KFP's own store, minio://mlpipeline/v2/artifacts"
RETRIES = "kubectl patch with manifests/components/retries/patch.yaml, see docs/deploy.md"
BOTH = "steps that failed and pods that were deleted are tried again"
DELETED_ONLY = "a pod that was deleted is tried again, a step that failed never"
FAILED_ONLY = "a step that failed is tried again, a pod that was deleted is not"
MANY_WRITERS = "ReadWriteMany"


def judge(seen: Seen, hardware: Hardware, steps: Sequence[str], data_bytes: int | None) -> list[Row]:
    """Judge a cluster.

    Args:
        seen: What was seen of it.
        hardware: What the config says of the hardware.
        steps: The run's steps.
        data_bytes: Size of the images at data.data_root; None where nobody asked.

    Returns:
        The rows, in the order in which a run meets them; where the API server cannot be asked, or is that of a cluster
        without KFP while KFP answers elsewhere, it and KFP alone.
    """
    version = _version(seen)
    rows = list(_kfp_rows(seen, version))
    answer = seen["version"]
    if not isinstance(answer, dict):
        reason = answer.reason if isinstance(answer, Unseen) else "what answers is no API server"
        who = "; KUBECONFIG names who can look" if reason.startswith(("401", "403")) else ""
        return [Row("Kubernetes", NOT_SEEN, reason, f"nothing else was looked at{who}"), *rows]
    if seen["server"] is None and seen["argo"] is None and seen["kfp"] is not None:
        todo = "nothing else was looked at; KUBECONFIG names another cluster than KFP's"
        return [Row("Kubernetes", NOT_SEEN, "the kubeconfig's cluster has no KFP", todo), *rows]
    rows.insert(0, Row("Kubernetes", HOLDS, f"{answer.get('gitVersion', 'answers')}, namespace {seen.namespace}"))
    groups: dict[str, Callable[[], Iterable[Row]]] = {
        "capacity": lambda: capacity_rows(seen, asked_by(hardware, steps), data_bytes),
        "Pod Security": lambda: _security_rows(seen, hardware, version),
        "account": lambda: _account_rows(seen, hardware),
        "secrets": lambda: _secret_rows(seen, hardware),
        "claims": lambda: (_claim_row(seen, volume, hardware) for volume in hardware.volumes),
        "retries": lambda: [_retry_row(seen, hardware)],
        "pipeline root": lambda: [_root_row(seen)],
        "TrainJobs": lambda: _trainer_rows(seen, hardware) if hardware.num_nodes > 1 else [],
    }
    for what, group in groups.items():
        try:
            rows += list(group())
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            text = f"an answer is not as Kubernetes gives it: {type(error).__name__} {error}"
            rows.append(Row(what, NOT_SEEN, text, "see what answers at the API server's address"))
    return rows


def _version(seen: Seen) -> Version | None:
    """KFP's version, by its own word or by the image of its API server; None where neither tells it."""
    health = seen["kfp"]
    texts = [str(health.get(key, "")) for key in ("tag_name", "apiServerTagName")] if isinstance(health, dict) else []
    texts += [container["image"].rpartition(":")[2] for container in _server(seen)]
    numbers = [match for text in texts if (match := re.match(r"v?(\d+)\.(\d+)\.", text))]
    return (int(numbers[0][1]), int(numbers[0][2])) if numbers else None


def _server(seen: Seen) -> list[JsonDict]:
    """The containers of KFP's API server."""
    deployment = seen["server"]
    if not isinstance(deployment, dict):
        return []
    try:
        containers: list[JsonDict] = deployment["spec"]["template"]["spec"]["containers"]
    except (KeyError, TypeError):  # no Deployment
        return []
    return containers


def _kfp_rows(seen: Seen, version: Version | None) -> Iterator[Row]:
    answer = seen["kfp"]
    if answer is None:
        todo = "KFP_ENDPOINT, or kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80"
        yield Row("KFP", SHORT, "nothing answers at its address", todo)
    elif isinstance(answer, Unseen):
        yield Row("KFP", NOT_SEEN, answer.reason, "name its address: KFP_ENDPOINT")
    elif version is None:
        yield Row(
            "KFP", NOT_SEEN, "it answers and does not tell its version", f"see that it is {_dotted(TITLES)} or newer"
        )
    elif version < TITLES:
        yield Row("KFP", SHORT, f"it is {_dotted(version)}", f"tasks with titles need {_dotted(TITLES)} or newer")
    else:
        yield Row("KFP", HOLDS, f"it answers and is {_dotted(version)}")


def _security_rows(seen: Seen, hardware: Hardware, version: Version | None) -> Iterator[Row]:
    what = "Pod Security"
    namespace = seen["namespace"]
    if hardware.restricted and version is not None and version < CONTEXTS:
        text = f"KFP {_dotted(version)} refuses the security context of hardware.restricted"
        yield Row(what, SHORT, text, f"KFP {_dotted(CONTEXTS)}, or hardware.restricted: false")
    elif isinstance(namespace, Unseen):
        yield Row(
            what, NOT_SEEN, namespace.reason, "where the namespace enforces restricted: hardware.restricted: true"
        )
    elif namespace is None:
        yield Row(what, SHORT, f"there is no namespace {seen.namespace}", "--namespace or KFP_NAMESPACE")
    else:
        yield _level_row(seen, hardware, namespace["metadata"].get("labels", {}))


def _level_row(seen: Seen, hardware: Hardware, labels: dict[str, str]) -> Row:
    level = labels.get("pod-security.kubernetes.io/enforce", "privileged")
    text = f"namespace {seen.namespace} enforces {level}"
    if level != "restricted" or hardware.restricted:
        return Row("Pod Security", HOLDS, text)
    if isinstance(seen["server"], Unseen):
        return Row("Pod Security", NOT_SEEN, f"{text}; KFP's own default cannot be seen", "hardware.restricted: true")
    variables = {row["name"]: row.get("value", "") for one in _server(seen) for row in one.get("env", [])}
    if variables.get("DEFAULT_SECURITY_CONTEXT_RUN_AS_NON_ROOT", "").lower() == "true" and hardware.num_nodes == 1:
        return Row("Pod Security", HOLDS, f"{text}, and KFP says runAsNonRoot by itself")
    return Row(
        "Pod Security", SHORT, f"{text} and refuses pods that do not say runAsNonRoot", "hardware.restricted: true"
    )


def _account_rows(seen: Seen, hardware: Hardware) -> Iterator[Row]:
    account = f"account {hardware.service_account}"
    answer = seen["account"]
    if answer is None:
        todo = "hardware.service_account: whom KFP's steps run as, default-editor in multi-user Kubeflow"
        yield Row(account, SHORT if hardware.num_nodes > 1 else PARTLY, f"is not in {seen.namespace}", todo)
        return
    if isinstance(answer, Unseen):
        yield Row(account, NOT_SEEN, answer.reason, "kubectl get serviceaccount, by who may")
        return
    yield Row(account, HOLDS, f"is in {seen.namespace}")
    yield _rights_row(seen, f"rights of steps, {account}", OF_STEPS, "KFP's own role pipeline-runner")
    if hardware.num_nodes > 1:
        todo = "kubectl apply -k manifests/overlays/gke-multi-node, or standalone-multi-node"
        has_own = isinstance(seen["own runtime"], dict)  # the cluster's are then not asked for
        rights = [right for right in OF_LAUNCHERS if not has_own or right != CLUSTER_RUNTIMES]
        yield _rights_row(seen, f"rights of launchers, {account}", rights, todo)


def _rights_row(seen: Seen, what: str, rights: Sequence[Right], todo: str) -> Row:
    answers = {right: seen[f"may {right}"] for right in rights}
    missing: list[Right] = []
    for right, answer in answers.items():
        if isinstance(answer, Unseen):
            return Row(what, NOT_SEEN, answer.reason, "looking needs the right to impersonate the account")
        if not (answer or {}).get("status", {}).get("allowed"):
            missing.append(right)
    if not missing:
        return Row(what, HOLDS, "all there")
    verdict = SHORT if any(right.needed for right in missing) else PARTLY
    return Row(what, verdict, f"may not {', '.join(map(str, missing))}", todo)


def _secret_rows(seen: Seen, hardware: Hardware) -> Iterator[Row]:
    make = "kubectl create secret, or change the key"
    named = {
        hardware.store_secret: "hardware.store_secret",
        **dict.fromkeys(hardware.pull_secrets, "hardware.pull_secrets"),
    }
    for name, key in {**named, hardware.hf_token_secret: "hardware.hf_token_secret"}.items():
        answer = seen[f"secret {name}"]
        if not name:
            continue
        if isinstance(answer, Unseen):
            yield Row(f"secret {name}", NOT_SEEN, answer.reason, f"see that it is in {seen.namespace}")
        elif answer is not None:
            yield Row(f"secret {name}", HOLDS, f"is in {seen.namespace}")
        elif name in named:
            yield Row(f"secret {name}", SHORT, f"is not in {seen.namespace}", f"{make} {key}")
        else:
            yield Row(
                f"secret {name}", PARTLY, f"is not in {seen.namespace}", "a gated backbone needs the hub's token there"
            )


def _claim_row(seen: Seen, volume: Volume, hardware: Hardware) -> Row:
    what, claim = f"claim {volume.claim}", seen[f"claim {volume.claim}"]
    if isinstance(claim, Unseen):
        return Row(what, NOT_SEEN, claim.reason, f"see that it is in {seen.namespace}")
    if claim is None:
        return Row(what, SHORT, f"is not in {seen.namespace}", "make it, or change hardware.volumes")
    phase, modes = claim.get("status", {}).get("phase", "Pending"), claim["spec"].get("accessModes", [])
    text = f"is {phase}, {' and '.join(modes)}"
    if phase == "Lost":
        return Row(what, SHORT, text, "its volume is gone: make the claim anew")
    if not {MANY_WRITERS, "ReadOnlyMany"}.intersection(modes) and (hardware.num_nodes > 1 or len(volume.steps) != 1):
        todo = f"pods of one run must then share a node: a claim with {MANY_WRITERS}, or hardware.volumes[].steps"
        return Row(what, PARTLY, text, todo)
    if phase != "Bound":
        return Row(what, NOT_SEEN, text, "it is bound when a pod first mounts it, or never: kubectl describe pvc")
    return Row(what, HOLDS, text)


def _retry_row(seen: Seen, hardware: Hardware) -> Row:
    """What "try again" means there: see the docstring of `pipelines/targets.py`."""
    what, answer = "retries", seen["workflows"]
    if not hardware.retries:
        return Row(what, HOLDS, "hardware.retries is 0")
    if not isinstance(answer, dict):
        reason = answer.reason if isinstance(answer, Unseen) else f"no ConfigMap of Argo's in {KFP_NAMESPACE}"
        return Row(what, NOT_SEEN, reason, "docs/deploy.md says what each KFP does")
    try:
        defaults: Any = yaml.safe_load(answer.get("data", {}).get("workflowDefaults", "")) or {}
        strategy = defaults.get("spec", {}).get("templateDefaults", {}).get("retryStrategy") or {}
        policy, limit = strategy.get("retryPolicy", ""), int(strategy.get("limit", 0))
    except (yaml.YAMLError, AttributeError, ValueError, TypeError):
        return Row(what, NOT_SEEN, "Argo's workflowDefaults cannot be read", RETRIES)
    kinds = {"Always": BOTH, "OnError": DELETED_ONLY}.get(policy, FAILED_ONLY)
    if limit:
        kinds += f", and an error that stays is tried up to {limit + 1} times at each level of the graph"
    return Row(what, HOLDS, kinds) if kinds == BOTH else Row(what, PARTLY, kinds, RETRIES)


def _root_row(seen: Seen) -> Row:
    what, answer = "pipeline root", seen["launcher"]
    if isinstance(answer, Unseen):
        return Row(what, NOT_SEEN, answer.reason, "kubectl get configmap kfp-launcher, by who may")
    root = (answer or {}).get("data", {}).get("defaultPipelineRoot", "")
    if re.search(r"://BUCKET\b", root):
        return Row(what, SHORT, f"is {root}", "name the bucket in manifests, see docs/deploy.md, and apply them again")
    return Row(what, HOLDS, root or DEFAULT_ROOT)


def _trainer_rows(seen: Seen, hardware: Hardware) -> list[Row]:
    what, trainer = "TrainJobs", seen["trainer"]
    if isinstance(trainer, Unseen):
        return [Row(what, NOT_SEEN, trainer.reason, "see that Kubeflow Trainer v2 is installed")]
    if trainer is None:
        todo = "install it, docs/deploy.md, or hardware.num_nodes: 1"
        return [Row(what, SHORT, "Kubeflow Trainer v2 is not installed", todo)]
    runtimes = [seen["runtime"], seen["own runtime"]]
    runtime = f"runtime {hardware.training_runtime}"
    if any(isinstance(answer, dict) for answer in runtimes):
        return [Row(what, HOLDS, f"Kubeflow Trainer has the {runtime}")]
    if hidden := [answer for answer in runtimes if isinstance(answer, Unseen)]:
        return [Row(what, NOT_SEEN, hidden[0].reason, f"see that there is a {runtime}")]
    return [Row(what, SHORT, f"there is no {runtime}", "hardware.training_runtime, or install Trainer's runtimes")]


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
