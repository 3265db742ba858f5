"""One TrainJob of Kubeflow Trainer v2, asked by its name, with every error of the Kubernetes API as one line.

It is made by the kubeflow SDK, which knows its runtime. All else goes past the SDK, which knows no owners, no
conditions on a change and no container that starts again. What may pass by itself, an API that is away, 429 and 5xx,
is asked again as `natix_lib.repeats` says, with a line each time.

Every change names the version that was read (`resourceVersion`), so that of two who change a job at once one is told
and looks again. A job may have several owners: Kubernetes removes it when the last of their Workflows is gone. None is
its controller and none asks to be blocked by it, which would need the right to change the Workflow's finalizers.
"""

import json
import logging
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from natix_lib.config.hardware import Nodes
from natix_lib.distributed.template import CONTAINER, REPLICATED_JOB, environment, job_options
from natix_lib.errors import ConfigError, TrainingError
from natix_lib.files import JsonDict
from natix_lib.progress import WARNING
from natix_lib.repeats import PASSING, Away, repeated

COMPLETE, FAILED = "Complete", "Failed"  # conditions of a TrainJob that is over
ADOPTED, CLOSED = "natix/adopted", "natix/closed"  # annotations: who adopted it last; someone is removing it
POD_NAME = "KFP_POD_NAME"  # that KFP gives every step by the downward API
POLL_SECONDS = 10.0
REQUEST_SECONDS = 30.0  # that an answer of the API may take; the client takes a pair, and no single float
SILENCE_SECONDS = 300.0  # without a line, after which a log is asked for again: the connection may be lost
GONE_SECONDS = 120.0  # within which a deleted job must be gone
NOT_FOUND, CONFLICT, FORBIDDEN = 404, 409, 403

T = TypeVar("T")


@dataclass(frozen=True)
class NodePod:
    """The pod of a node, the newest where it had several.

    Attributes:
        name: Its name.
        restarts: How often its container has started again.
        ended: How the container before this one ended; "" when none is known.
        running: Whether the container runs.
        started: Whether it has a log.
    """

    name: str
    restarts: int
    ended: str
    running: bool
    started: bool


class Job:
    """A TrainJob by its name, whether it exists or not."""

    def __init__(self, name: str) -> None:
        """Ask the cluster of the pod that this is, or of the kubeconfig, for jobs of this name."""
        self.name = name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic, for the SDK
                from kubeflow.trainer import TrainerClient
                from kubeflow.trainer.constants import constants
        except ModuleNotFoundError as error:
            raise ConfigError("hardware.num_nodes above 1 needs kubeflow: pip install 'natix[nodes]'") from error
        logging.getLogger("kubeflow").setLevel(logging.ERROR)  # whether its control plane tells its version
        try:
            self._client: Any = TrainerClient()
            backend: Any = self._client.backend
            self._custom, self._core, self._namespace = backend.custom_api, backend.core_api, backend.namespace
        except Exception as error:  # the SDK's and Kubernetes' own, of many classes
            raise TrainingError(f"no Kubernetes API for a TrainJob: {error}") from error
        self._kind = (constants.GROUP, constants.VERSION, self._namespace, constants.TRAINJOB_PLURAL)
        self.owner = self._find_owner()

    def read(self) -> JsonDict | None:
        """The job as the API has it; None when there is none."""
        try:
            read = self._custom.get_namespaced_custom_object
            state: JsonDict = self._ask("cannot be read", read, *self._kind, self.name)
        except TrainingError as error:
            if _code(error) == NOT_FOUND:
                return None
            raise
        return state

    def create(self, arguments: list[str], num_gpus: int, nodes: Nodes) -> bool:
        """Create a job whose nodes run `natix_lib.distributed.node` with these arguments.

        Returns:
            False when another has created it at the same time.
        """
        from kubeflow.trainer import CustomTrainerContainer, options

        resources = {"cpu": nodes.cpu, "memory": nodes.memory, **({"gpu": num_gpus} if num_gpus else {})}

        def train(**_: Any) -> None:
            self._client.train(
                runtime=nodes.runtime,
                trainer=CustomTrainerContainer(nodes.image, nodes.num_nodes, resources, environment(nodes)),
                options=[
                    options.Name(self.name),
                    options.TrainerCommand(["python3", "-m", "natix_lib.distributed.node", *arguments]),
                    options.ActiveDeadlineSeconds(round(nodes.timeout_hours * 3600)),
                    *job_options(nodes),
                ],
            )

        try:
            self._ask("cannot be created", train)
        except TrainingError as error:
            if _code(error) != CONFLICT:
                raise
            return False
        return True

    def adopt(self, state: JsonDict) -> bool:
        """Have this run's Workflow own the job too; False when it has changed since `state` was read.

        The annotation changes the job even where the owner is there already: who closes it meanwhile is then refused.
        """
        changes: JsonDict = {"annotations": {ADOPTED: uuid.uuid4().hex}}
        if self.owner:
            changes["ownerReferences"] = [*self._other_owners(state), self.owner]
        return self._change(state, changes)

    def release(self, state: JsonDict) -> bool:
        """Have this run's Workflow own the job no longer; False when it has changed since `state` was read."""
        return not self.owner or self._change(state, {"ownerReferences": self._other_owners(state)})

    def close(self, state: JsonDict) -> bool:
        """Say that the job and its folder are being removed; False when it has changed since `state` was read."""
        return self._change(state, {"annotations": {CLOSED: "true"}})

    def delete(self, state: JsonDict) -> None:
        """Delete the job that was read, and no later one of its name, and wait until it is gone.

        Raises:
            TrainingError: If that is not allowed, or it is still there after `GONE_SECONDS`.
        """
        body = {"preconditions": {"uid": state["metadata"]["uid"]}}
        try:
            delete = self._custom.delete_namespaced_custom_object
            self._ask("cannot be deleted", delete, *self._kind, self.name, body=body)
        except TrainingError as error:
            if _code(error) not in (NOT_FOUND, CONFLICT):
                raise
        if not self.is_gone(state):
            raise TrainingError(f"TrainJob {self.name} was deleted and is still there after {GONE_SECONDS:.0f} s")

    def is_gone(self, state: JsonDict) -> bool:
        """Whether the job that was read goes within `GONE_SECONDS`; waits for it."""
        until = time.monotonic() + GONE_SECONDS
        while (now := self.read()) and now["metadata"]["uid"] == state["metadata"]["uid"]:
            if time.monotonic() > until:
                return False
            time.sleep(min(1.0, POLL_SECONDS))
        return True

    def pods(self) -> dict[int, NodePod]:
        """The pods of its nodes by the number of the node."""
        labels = {"jobset-name": self.name, "replicatedjob-name": REPLICATED_JOB}
        selector = ",".join(f"jobset.sigs.k8s.io/{key}={value}" for key, value in labels.items())
        pods = self._ask(
            "has pods that cannot be listed", self._core.list_namespaced_pod, self._namespace, label_selector=selector
        ).items
        oldest_first = sorted(pods, key=lambda pod: pod.metadata.creation_timestamp)
        return {int(pod.metadata.labels["batch.kubernetes.io/job-completion-index"]): _pod(pod) for pod in oldest_first}

    def log(self, pod: str, previous: bool = False) -> Iterator[tuple[str, str]]:
        """Time and text of each line that the container of a pod logs, from its start on, until it or the stream ends.

        Args:
            pod: The pod's name.
            previous: Take the container before the one that the pod has now.

        Raises:
            Exception: Of Kubernetes' client or its HTTP library, when the stream breaks or none is allowed.
        """
        stream = self._core.read_namespaced_pod_log(
            pod,
            self._namespace,
            container=CONTAINER,
            follow=True,
            timestamps=True,
            previous=previous,
            _preload_content=False,
            _request_timeout=(REQUEST_SECONDS, SILENCE_SECONDS),
        )
        try:
            rest = b""
            for part in stream.stream(amt=None):
                *lines, rest = (rest + part).split(b"\n")
                yield from map(_stamp_and_text, lines)
            if rest:
                yield _stamp_and_text(rest)
        finally:
            stream.close()

    def _find_owner(self) -> JsonDict | None:
        """The Workflow of the run whose pod this is, as owner; None, and a line, where it cannot be found."""
        name = os.environ.get(POD_NAME)
        if not name:
            return None  # started by hand, or by no KFP
        try:
            pod = self._ask("has an owner that cannot be found", self._core.read_namespaced_pod, name, self._namespace)
        except TrainingError as error:
            print(f"{WARNING}{error}; it outlives its run until its nodes see no sign of life", flush=True)
            return None
        for owner in pod.metadata.owner_references or []:
            if owner.kind == "Workflow":
                return {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
        return None

    def _other_owners(self, state: JsonDict) -> list[JsonDict]:
        owners = state["metadata"].get("ownerReferences", [])
        return [owner for owner in owners if self.owner is None or owner["uid"] != self.owner["uid"]]

    def _change(self, state: JsonDict, changes: JsonDict) -> bool:
        body = {"metadata": {"resourceVersion": state["metadata"]["resourceVersion"], **changes}}
        try:
            patch = self._custom.patch_namespaced_custom_object
            self._ask("cannot be changed", patch, *self._kind, self.name, body)
        except TrainingError as error:
            if _code(error) == FORBIDDEN:  # a role of an earlier version
                print(
                    f"{WARNING}{error}; this run does not own it, and who comes while it is removed may lose it",
                    flush=True,
                )
                return True
            if _code(error) not in (NOT_FOUND, CONFLICT):
                raise
            return False
        return True

    def _ask(self, failing: str, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call the API; what may pass is asked again."""

        def once() -> T:
            try:
                return call(*arguments, **options, _request_timeout=(REQUEST_SECONDS, REQUEST_SECONDS))
            except Exception as error:  # the SDK's, Kubernetes' and its HTTP library's own, of many classes
                line = f"TrainJob {self.name} {failing}: {reason(error)}"
                raise (Away if _may_pass(error) else TrainingError)(line) from error

        try:
            return repeated(once)
        except Away as error:
            raise TrainingError(str(error)) from error


def ending(state: JsonDict) -> bool:
    """Whether a job is being removed, by one of those who waited for it or by Kubernetes."""
    metadata = state["metadata"]
    return CLOSED in (metadata.get("annotations") or {}) or "deletionTimestamp" in metadata


def outcome(state: JsonDict) -> str:
    """COMPLETE or FAILED of a job that is over, "" of one that is not."""
    conditions = (state.get("status") or {}).get("conditions") or []
    ended = [each["type"] for each in conditions if each["status"] == "True" and each["type"] in (COMPLETE, FAILED)]
    return str(ended[0]) if ended else ""


def _pod(pod: Any) -> NodePod:
    """What counts of a pod of Kubernetes' client."""
    containers = pod.status.container_statuses or []
    status = next((each for each in containers if each.name == CONTAINER), None)
    if status is None:
        return NodePod(pod.metadata.name, 0, "", running=False, started=False)
    before = status.last_state.terminated if status.last_state else None
    ended = f"exit code {before.exit_code}" + (f" ({before.reason})" if before.reason else "") if before else ""
    running = bool(status.state and status.state.running)
    return NodePod(pod.metadata.name, status.restart_count, ended, running, started=bool(status.container_id))


def _stamp_and_text(line: bytes) -> tuple[str, str]:
    stamp, _, text = line.decode(errors="replace").partition(" ")
    return stamp, text


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__


def _code(error: BaseException) -> int | None:
    """The API's HTTP status, of an error of its client or one that was raised from it."""
    codes = (getattr(each, "status", None) for each in _chain(error))
    return next((code for code in codes if isinstance(code, int)), None)


def _may_pass(error: BaseException) -> bool:
    from urllib3.exceptions import HTTPError

    code = _code(error)
    if code is not None:
        return code in PASSING
    return any(isinstance(each, OSError | HTTPError) for each in _chain(error))


def reason(error: BaseException) -> str:
    """What the SDK and the API say: the API's own message where it gives one, such as that of an admission webhook."""
    said = []
    for each in _chain(error):
        if isinstance(getattr(each, "status", None), int):
            try:
                message = json.loads(getattr(each, "body", None) or "{}").get("message")
            except ValueError:
                message = None
            said.append(str(message or getattr(each, "reason", "") or each))
        else:
            said.append(str(each) or type(each).__name__)
        if any(said[-1] in earlier for earlier in said[:-1]):
            said.pop()
    return ": ".join(said)
