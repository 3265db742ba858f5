"""Whether the nodes, quotas and limits of a cluster hold the pods of a run.

Judged are the nodes as they are when empty: what other pods hold now is given back some time, and quotas say what is
not. What a node's own pods (DaemonSets) take of it is not known here, so a step that fits to the last tenth may wait.

Where an autoscaler is at work, or may be, a node that is missing now is no shortfall: pools that begin at zero are what
docs/deploy.md recommends for GPUs.

A quota counts what pods ask for, and the pods. It refuses one that does not say its CPUs or memory, which ours do; of
any other resource, such as ephemeral-storage, a pod that does not say it counts as none (`validationSet` in
Kubernetes' pkg/quota/v1/evaluator/core/pods.go).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from natix_lib.config.hardware import CHECK, Hardware, Toleration
from natix_lib.files import JsonDict
from natix_lib.run_cache import size_text
from natix_lib.survey.cluster import Seen, Unseen
from natix_lib.survey.pods import GPU_NODE_LABEL, GPU_RESOURCE, Pod, gpu_pod, is_gpu_step, is_launcher, pod_of
from natix_lib.survey.verdicts import HOLDS, NOT_SEEN, PARTLY, SHORT, Row

MANAGED = ("cloud.google.com/gke-nodepool", "eks.amazonaws.com/nodegroup", "kubernetes.azure.com/agentpool")
REAL_GPU = ("nvidia.com/gpu.", "nvidia.com/cuda.", GPU_NODE_LABEL, "k8s.amazonaws.com/accelerator")  # begin labels
UNITS = {"cpu": "CPUs", "memory": "bytes of memory", GPU_RESOURCE: "GPUs"}
PODS = ("pods", "count/pods")  # of a quota
KEYS = {"cpu": "cpu", "memory": "memory"}  # of a Pod's resources, after its prefix


@dataclass(frozen=True)
class Asked:
    """Pods of one kind that a run asks for at once; those of a TrainJob have no deadline of their own."""

    name: str
    pod: Pod
    count: int = 1
    has_deadline: bool = True

    @property
    def amounts(self) -> dict[str, Decimal]:
        """What one pod asks for, by resource."""
        amounts = {"cpu": quantity(self.pod.cpu), "memory": quantity(self.pod.memory)}
        return amounts | ({GPU_RESOURCE: Decimal(self.pod.gpus)} if self.pod.gpus else {})

    def key(self, resource: str) -> str:
        """The key of the config that says how much."""
        if resource in PODS:
            return "hardware.num_nodes" if self.count > 1 else "a quota of more pods"
        return f"{self.pod.prefix}{KEYS[resource]}" if resource in KEYS else "hardware.num_gpus"

    def is_counted(self, scopes: Iterable[str]) -> bool:
        """Whether a quota with these scopes counts them: they ask for resources and have no class of priority."""
        return {"NotBestEffort", "Terminating" if self.has_deadline else "NotTerminating"}.issuperset(scopes)


def quantity(text: object) -> Decimal:
    """A quantity as Kubernetes writes it."""
    from kubernetes.utils.quantity import parse_quantity

    value: Decimal = parse_quantity(text)
    return value


def asked_by(hardware: Hardware, steps: Iterable[str]) -> list[Asked]:
    """The kinds of pods of a run with these steps."""
    tasks = [CHECK, *steps]
    with_gpu = [task for task in tasks if pod_of(task, hardware).gpus]
    kinds = [Asked("steps without GPUs", pod_of(CHECK, hardware))]
    if with_gpu:
        kinds.append(Asked(f"steps with GPUs ({', '.join(with_gpu)})", gpu_pod(hardware)))
    if any(is_launcher(task, hardware) for task in tasks):
        waiting = ", ".join(filter(is_gpu_step, tasks))
        kinds.append(Asked(f"nodes of a TrainJob ({waiting})", gpu_pod(hardware), hardware.num_nodes, False))
    return kinds


def capacity_rows(seen: Seen, kinds: Sequence[Asked], data_bytes: int | None) -> list[Row]:
    """The rows of nodes, GPUs, disks, quotas and limit ranges."""
    nodes = seen.items("nodes")
    if isinstance(nodes, Unseen):
        rows = [Row("nodes", NOT_SEEN, nodes.reason, "ask who may list nodes, or look at the first pods of the run")]
    else:
        may_grow = _may_grow(seen, nodes)
        rows = [_node_row(kind, nodes, may_grow) for kind in kinds]
        rows += list(_gpu_rows(kinds, nodes))
        rows += _disk_rows(seen, kinds[0], nodes, data_bytes)
    return [*rows, *_quota_rows(seen, kinds), *_limit_rows(seen, kinds)]


def _node_row(kind: Asked, nodes: Sequence[JsonDict], may_grow: str) -> Row:
    what = f"node for {kind.name}"
    fitting = [node for node in nodes if _places(node, kind) > 0]
    if sum(_places(node, kind) for node in fitting) >= kind.count:
        best = max(fitting, key=lambda node: _allocatable(node, "cpu"))
        text = f"asks {_amounts_text(kind.amounts)}{f' x {kind.count}' if kind.count > 1 else ''}, the largest"
        return Row(what, HOLDS, f"{text} that takes it is {_name(best)} with {_largest_text(best, kind)}")
    short, todo = _obstacle(kind, nodes) if not fitting else (f"room for {len(fitting)} of {kind.count}", _more(kind))
    if may_grow:
        return Row(what, NOT_SEEN, f"{short} now, but {may_grow}", f"see that a pool has such nodes, or {todo}")
    if not_up := [node for node in nodes if _room(node, kind) and not _is_up(node)]:
        return Row(what, NOT_SEEN, f"{short}, but {_name(not_up[0])} is cordoned or not ready", "kubectl get nodes")
    return Row(what, SHORT, short, todo)


def _more(kind: Asked) -> str:
    return f"hardware.num_nodes below {kind.count}, or more nodes"


def _obstacle(kind: Asked, nodes: Sequence[JsonDict]) -> tuple[str, str]:
    """Why no node takes a pod, the first of: labels, taints, one resource, all together; and what to do."""
    pod = kind.pod
    up = [node for node in nodes if _is_up(node)]
    if not up:
        return f"none of {len(nodes)} nodes is ready", "kubectl get nodes"
    labelled = [node for node in up if pod.node_selector.items() <= node["metadata"].get("labels", {}).items()]
    if not labelled:
        labels = ", ".join(f"{key}={value}" for key, value in pod.node_selector.items())
        return f"none of {len(up)} nodes has the labels {labels}", f"{pod.prefix}node_selector: labels that they have"
    tolerated = [node for node in labelled if not _taints(node, pod.tolerations)]
    if not tolerated:
        taint = _taints(labelled[0], pod.tolerations)[0]
        text = f"{taint.get('key', '')}{'=' + taint['value'] if taint.get('value') else ''}:{taint['effect']}"
        return f"node {_name(labelled[0])} has the taint {text}", f"{pod.prefix}tolerations: tolerate it"
    for resource, amount in kind.amounts.items():
        most = max(_allocatable(node, resource) for node in tolerated)
        if most < amount:
            has, asks = _amount_text(resource, most), _amount_text(resource, amount)
            return f"asks {asks}, the largest node has {has}", f"{kind.key(resource)} below that"
    return f"no node has {_amounts_text(kind.amounts)} at once", f"{pod.prefix}cpu, {pod.prefix}memory"


def _places(node: JsonDict, kind: Asked) -> int:
    """How many of a kind's pods an empty node takes now."""
    return _room(node, kind) if _is_up(node) else 0


def _room(node: JsonDict, kind: Asked) -> int:
    """How many it takes when it is ready and not cordoned."""
    labels = node["metadata"].get("labels", {})
    if not kind.pod.node_selector.items() <= labels.items() or _taints(node, kind.pod.tolerations):
        return 0
    return int(min(_allocatable(node, resource) // amount for resource, amount in kind.amounts.items()))


def _is_up(node: JsonDict) -> bool:
    conditions = {row["type"]: row["status"] for row in node.get("status", {}).get("conditions", [])}
    return not node.get("spec", {}).get("unschedulable") and conditions.get("Ready", "True") == "True"


def _taints(node: JsonDict, tolerations: Sequence[Toleration]) -> list[JsonDict]:
    """The taints of a node that keep a pod away."""
    taints: list[JsonDict] = node.get("spec", {}).get("taints") or []
    hard = [taint for taint in taints if taint["effect"] in ("NoSchedule", "NoExecute")]
    return [taint for taint in hard if not any(_tolerates(toleration, taint) for toleration in tolerations)]


def _tolerates(toleration: Toleration, taint: JsonDict) -> bool:
    same_key = toleration.key in ("", taint.get("key"))
    same_value = toleration.operator == "Exists" or toleration.value == taint.get("value", "")
    return same_key and same_value and toleration.effect in ("", taint["effect"])


def _may_grow(seen: Seen, nodes: Sequence[JsonDict]) -> str:
    """Why other nodes may come: an autoscaler, or that none can be ruled out; "" where none can come."""
    for question, name in (("autoscaler", "the cluster autoscaler"), ("karpenter", "Karpenter")):
        answer = seen[question]
        if isinstance(answer, Unseen):
            return f"whether {name} is at work cannot be seen ({answer.reason})"
        if answer is not None:
            return f"{name} may bring one"
    managed = [label for label in MANAGED for node in nodes if label in node["metadata"].get("labels", {})]
    return f"a managed pool ({managed[0]}) may bring one" if managed else ""


def _gpu_rows(kinds: Sequence[Asked], nodes: Sequence[JsonDict]) -> Iterator[Row]:
    """Whether the GPUs of the nodes that take a pod are real: the resource can be written into a status by hand."""
    fitting = [node for node in nodes for kind in kinds if kind.pod.gpus and _places(node, kind)]
    if fitting:
        real = [node for node in fitting if any(key.startswith(REAL_GPU) for key in node["metadata"].get("labels", {}))]
        node = (real or fitting)[0]
        text = f"{_name(node)} has {_allocatable(node, GPU_RESOURCE):f} {GPU_RESOURCE}"
        if real:
            yield Row("GPUs", HOLDS, text)
        else:
            text += ", and no label of a driver or a cloud tells that they are real"
            yield Row("GPUs", NOT_SEEN, text, "the first lines of train say what it computes on")


def _disk_rows(seen: Seen, kind: Asked, nodes: Sequence[JsonDict], data_bytes: int | None) -> list[Row]:
    """Whether a node's disk holds the data, which KFP's launcher puts into the scratch of each pod that reads it."""
    if data_bytes is None:
        return [Row("disk", NOT_SEEN, "how large the data is was not asked", "name the config, and its data_root here")]
    sizes = {_name(node): _free(seen, node) for node in nodes if _places(node, kind)}
    free = {name: size for name, size in sizes.items() if size is not None}
    if not free:
        return [Row("disk", NOT_SEEN, "no node tells its disk", "leave twice the bytes of the images free")]
    name = max(free, key=lambda name: free[name])
    text = f"the images have {size_text(data_bytes)}, {name} has {size_text(free[name])} for pods"
    if free[name] < 2 * data_bytes:  # split reads all images and writes its sets of them
        return [Row("disk", PARTLY, text, "split holds them twice: larger disks on the nodes, or fewer images")]
    return [Row("disk", HOLDS, text)]


def _free(seen: Seen, node: JsonDict) -> int | None:
    """Free bytes of a node's disk by its own statistics, else what it may give to pods, else None."""
    statistics = seen[f"disk {_name(node)}"]
    if isinstance(statistics, dict) and "availableBytes" in statistics.get("node", {}).get("fs", {}):
        return int(statistics["node"]["fs"]["availableBytes"])
    allocatable = node.get("status", {}).get("allocatable", {}).get("ephemeral-storage")
    return None if allocatable is None else int(quantity(allocatable))


def _quota_rows(seen: Seen, kinds: Sequence[Asked]) -> list[Row]:
    quotas = seen.items("quotas")
    if isinstance(quotas, Unseen):
        return [Row("quotas", NOT_SEEN, quotas.reason, "kubectl describe quota, by who may")]
    rows = []
    for quota in quotas:
        if quota.get("spec", {}).get("scopeSelector"):
            continue  # for other pods than ours: a priority
        counted = [kind for kind in kinds if kind.is_counted(quota.get("spec", {}).get("scopes") or ())]
        hard, used = quota.get("status", {}).get("hard") or {}, quota.get("status", {}).get("used") or {}
        for name, limit in (hard or quota.get("spec", {}).get("hard", {})).items():
            resource = name.removeprefix("requests.").removeprefix("limits.")
            rows += _of_quota(
                f"{quota['metadata']['name']}, {name}", resource, quantity(limit), used.get(name), counted
            )
    return rows or [Row("quotas", HOLDS, "none is in the way")]


def _of_quota(what: str, resource: str, limit: Decimal, used: object, kinds: Sequence[Asked]) -> list[Row]:
    for kind in kinds:
        amount = (Decimal(1) if resource in PODS else kind.amounts.get(resource, Decimal(0))) * kind.count
        asks, most = _amount_text(resource, amount), _amount_text(resource, limit)
        if amount > limit:
            return [Row(f"quota {what}", SHORT, f"{kind.name} ask {asks}, it allows {most}", kind.key(resource))]
        if used is not None and amount > limit - quantity(used):
            taken = _amount_text(resource, quantity(used))
            text = f"{kind.name} ask {asks}, of {most} {taken} are taken now"
            return [Row(f"quota {what}", PARTLY, text, "wait, or end what holds them")]
    return []


def _limit_rows(seen: Seen, kinds: Sequence[Asked]) -> list[Row]:
    ranges = seen.items("limits")
    if isinstance(ranges, Unseen):
        return [Row("limit ranges", NOT_SEEN, ranges.reason, "kubectl describe limitrange, by who may")]
    rows = []
    for limit_range in ranges:
        for limit in limit_range["spec"]["limits"]:
            if limit["type"] in ("Container", "Pod"):
                what = f"limit range {limit_range['metadata']['name']}"
                rows += [row for kind in kinds for row in _of_limit(what, limit, kind)]
    return rows or [Row("limit ranges", HOLDS, "none is in the way")]


def _of_limit(what: str, limit: JsonDict, kind: Asked) -> Iterator[Row]:
    for resource, amount in kind.amounts.items():
        most, least = limit.get("max", {}).get(resource), limit.get("min", {}).get(resource)
        asks = _amount_text(resource, amount)
        if most is not None and amount > quantity(most):
            text = f"{kind.name} ask {asks}, it allows {_amount_text(resource, quantity(most))}"
            yield Row(what, SHORT, text, f"{kind.key(resource)} at most that")
        if least is not None and amount < quantity(least):
            text = f"{kind.name} ask {asks}, it wants {_amount_text(resource, quantity(least))}"
            yield Row(what, SHORT, text, f"{kind.key(resource)} at least that")


def _name(node: JsonDict) -> str:
    return str(node["metadata"]["name"])


def _allocatable(node: JsonDict, resource: str) -> Decimal:
    return quantity(node.get("status", {}).get("allocatable", {}).get(resource, 0))


def _amount_text(resource: str, amount: Decimal) -> str:
    if resource == "memory":
        return f"{amount / 2**30:.1f} GiB"
    return f"{amount.normalize():f} {UNITS.get(resource, resource)}"


def _amounts_text(amounts: dict[str, Decimal]) -> str:
    return ", ".join(_amount_text(resource, amount) for resource, amount in amounts.items())


def _largest_text(node: JsonDict, kind: Asked) -> str:
    return _amounts_text({resource: _allocatable(node, resource) for resource in kind.amounts})
