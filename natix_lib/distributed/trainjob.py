"""Computing on several nodes: the step's own pod starts a Kubeflow Trainer v2 TrainJob, waits, and takes the answer.

The pod is a launcher on a CPU node. It puts the request and the inputs into `hardware.shared_root`, below a name made
of what is asked, creates a TrainJob of that name with the kubeflow SDK, prints the first node's log, and removes both
when it has the answer. The name makes it repeatable: a launcher that was killed and is tried again finds its job and
waits on; another question gets another job. A launcher that is told to stop deletes its job, because nobody would
stop paying for the GPUs otherwise, and the job has a deadline of its own. A job that failed is deleted and made anew
by the next try, and adapt then goes on from its checkpoint.

A volume that all nodes mount was rejected: it needs a storage class that few clusters have, and object storage is
where the artifacts are.
"""

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from natix_lib import storage
from natix_lib.config.hardware import Nodes
from natix_lib.contracts import ARTIFACTS
from natix_lib.distributed.exchange import FAULT, FIGURES, INPUTS, REQUEST, TENSORS, Answer, answer
from natix_lib.distributed.template import environment, job_options
from natix_lib.errors import ConfigError, TrainingError
from natix_lib.files import JsonDict, canonical_json, sha256_bytes, sha256_file, write_json
from natix_lib.stopping import stoppable

POLL_SECONDS = 10.0
GONE_SECONDS = 120.0  # within which a deleted job must be gone
OUTAGE_SECONDS = 600.0  # that the Kubernetes API may be away for while a job runs


def compute_on_nodes(
    step: str, worker: str, settings: Mapping[str, Any], inputs: Mapping[str, str], num_gpus: int, nodes: Nodes
) -> Answer:
    """Compute for a step on several nodes.

    Args:
        step: The step's name, which the job's name tells.
        worker: Name of the module that each process runs.
        settings: The step's settings, as JSON.
        inputs: Paths of its input artifacts, by their names in `contracts.ARTIFACTS`.
        num_gpus: Processes of a node, one a GPU; without a GPU one.
        nodes: What each node is.

    Returns:
        Tensors by name, on the CPU, and figures as JSON.

    Raises:
        NatixError: What a process has raised.
        TrainingError: If the job failed without a reason, or cannot be created or watched.
        StorageError: If `hardware.shared_root` cannot be read or written.
    """
    request: JsonDict = {
        "settings": {key: value for key, value in settings.items() if key != "nodes"},
        INPUTS: sorted(inputs),
        "processes": max(1, num_gpus),
    }
    name = job_name(step, request, inputs, nodes)
    uri = f"{nodes.shared_root.rstrip('/')}/{name}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        jobs = _Jobs()
        with _deleted_when_told_to_stop(jobs, name):
            status = jobs.status(name)
            if status == jobs.failed:
                jobs.delete(name)
            if status in (None, jobs.failed):
                storage.remove_file(f"{uri}/{FAULT}")
                storage.remove_file(f"{uri}/{FIGURES}")
                for artifact, path in inputs.items():
                    storage.mirror(path, f"{uri}/{INPUTS}/{artifact}")
                write_json(folder / REQUEST, request)
                storage.mirror(folder / REQUEST, f"{uri}/{REQUEST}")
                jobs.create(name, [worker, uri], num_gpus, nodes)
            print(f"TrainJob {name}: {nodes.num_nodes} nodes, {request['processes']} processes on each", flush=True)
            failed = jobs.wait(name, nodes) == jobs.failed
            for file in ({FAULT} if failed else {TENSORS, FIGURES}).intersection(storage.file_names(uri)):
                folder = storage.fetch_file(f"{uri}/{file}", folder).parent  # on a volume it is read where it lies
            if failed and not (folder / FAULT).is_file():
                raise TrainingError(f"TrainJob {name} failed and gave no reason: see the logs of its pods")
            try:
                result = answer(folder, int(failed))
            finally:
                if not failed:  # the pods of a failed one are kept for their logs, until the next try
                    jobs.delete(name)
    storage.remove_folder(uri)
    return result


def job_name(step: str, request: JsonDict, inputs: Mapping[str, str], nodes: Nodes) -> str:
    """A name that is the same for the same question, inputs, image and nodes, and that Kubernetes takes."""
    content = {
        name: sha256_file(Path(path) / ARTIFACTS[name].manifest if ARTIFACTS[name].manifest else path)
        for name, path in inputs.items()
    }
    question = canonical_json({**request, INPUTS: content, "image": nodes.image, "nodes": nodes.num_nodes})
    return f"natix-{step}-{sha256_bytes(question)[:16]}"


class _Jobs:
    """The few things that are asked of TrainJobs, with the SDK's errors as one line."""

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic, for the SDK
                from kubeflow.trainer import TrainerClient
                from kubeflow.trainer.constants import constants
        except ModuleNotFoundError as error:
            raise ConfigError("hardware.num_nodes above 1 needs kubeflow: pip install 'natix[nodes]'") from error
        logging.getLogger("kubeflow").setLevel(logging.ERROR)  # whether its control plane tells its version
        self.failed, self.complete, self.running = (
            constants.TRAINJOB_FAILED,
            constants.TRAINJOB_COMPLETE,
            constants.TRAINJOB_RUNNING,
        )
        try:
            self._client: Any = TrainerClient()
        except Exception as error:  # the SDK's and Kubernetes' own, of many classes
            raise TrainingError(f"no Kubernetes API for a TrainJob: {error}") from error

    def status(self, name: str) -> str | None:
        """The status of a job; None when there is none."""
        try:
            status: str = self._client.get_job(name).status
        except Exception as error:
            if getattr(error.__cause__, "status", None) == 404:
                return None
            raise _line(f"TrainJob {name} cannot be read", error) from error
        return status

    def create(self, name: str, arguments: list[str], num_gpus: int, nodes: Nodes) -> None:
        """Create a job whose nodes run `natix_lib.distributed.node` with these arguments."""
        from kubeflow.trainer import CustomTrainerContainer, options

        resources = {"cpu": nodes.cpu, "memory": nodes.memory, **({"gpu": num_gpus} if num_gpus else {})}
        try:
            self._client.train(
                runtime=nodes.runtime,
                trainer=CustomTrainerContainer(nodes.image, nodes.num_nodes, resources, environment(nodes)),
                options=[
                    options.Name(name),
                    options.TrainerCommand(["python3", "-m", "natix_lib.distributed.node", *arguments]),
                    options.ActiveDeadlineSeconds(round(nodes.timeout_hours * 3600)),
                    *job_options(nodes),
                ],
            )
        except Exception as error:
            raise _line(f"TrainJob {name} cannot be created", error) from error

    def wait(self, name: str, nodes: Nodes) -> str:
        """Print the first node's log as it comes; gives the status at the end."""
        until = time.monotonic() + nodes.timeout_hours * 3600
        ends = {self.complete, self.failed}
        followed = False
        answered = time.monotonic()
        while time.monotonic() < until:
            try:
                status = self.status(name)
                answered = time.monotonic()
            except TrainingError:
                if time.monotonic() - answered > OUTAGE_SECONDS:
                    raise
                time.sleep(POLL_SECONDS)
                continue
            if status is None:
                raise TrainingError(f"TrainJob {name} was deleted while it ran")
            if not followed and status in {self.running, *ends}:
                followed = self._print_log(name)
                answered = time.monotonic()  # a log may take days
            elif status in ends:
                return status
            else:
                time.sleep(POLL_SECONDS)
        raise TrainingError(f"TrainJob {name} was not done in hardware.gpu_timeout_hours {nodes.timeout_hours:g}")

    def _print_log(self, name: str) -> bool:
        try:
            for line in self._client.get_job_logs(name, follow=True):
                print(line, flush=True)
        except Exception as error:  # a log that breaks off must not end the run
            print(f"the log of TrainJob {name} broke off: {error}", flush=True)
        return True

    def delete(self, name: str) -> None:
        """Delete a job and wait until it is gone."""
        try:
            self._client.delete_job(name)
        except Exception as error:
            if getattr(error.__cause__, "status", None) != 404:
                raise _line(f"TrainJob {name} cannot be deleted", error) from error
        until = time.monotonic() + GONE_SECONDS
        while self.status(name) is not None:
            if time.monotonic() > until:
                raise TrainingError(f"TrainJob {name} was deleted and is still there after {GONE_SECONDS:.0f} s")
            time.sleep(1)


def _line(what: str, error: Exception) -> TrainingError:
    cause = error.__cause__
    return TrainingError(f"{what}: {error}: {getattr(cause, 'reason', None) or cause}" if cause else f"{what}: {error}")


@contextmanager
def _deleted_when_told_to_stop(jobs: _Jobs, name: str) -> Iterator[None]:
    """Delete the job when this process is told to stop, and when a person interrupts it."""
    with stoppable():
        try:
            yield
        except SystemExit:
            jobs.delete(name)
            raise
