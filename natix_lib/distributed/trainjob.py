"""Computing on several nodes: the step's own pod starts a Kubeflow Trainer v2 TrainJob, waits, and takes the answer.

The pod is a launcher on a CPU node. It puts the request and the inputs into `hardware.shared_root`, below a name made
of what is asked, creates a TrainJob of that name with the kubeflow SDK, prints the first node's log, and removes both
when it has the answer. The name makes it repeatable: a launcher that was killed and is tried again finds its job and
waits on, as does another run that asks the same at the same time; another question gets another job. A job that failed
is deleted and made anew by the next try, and adapt then goes on from its checkpoint.

Nothing computes for nobody. A launcher that is told to stop deletes its job; one that is killed leaves a job that is
owned by its run's Workflow and ends by itself when nobody shows a sign of life (`life.py`); and the job has a deadline
of its own. Whoever is done takes its mark away first and looks for others' then, so that of two who are done at once
one at least sees that nobody waits any more. That one closes the job, in the version that it has read, and only then
removes folder and job: who adopts it meanwhile has changed the version, which refuses the closing. Who comes while the
folder is removed sees the mark of who does it, and waits until that is gone or old: its inputs would be removed too.

An answer is not computed twice. Whole in the folder, where its figures say so, it is the answer to this question
whatever has become of the job; it is taken before anything is removed, and is the last to be removed. So one that
could not be taken, or was not, stays for the next try. That the removal fails is a warning, and who asks the same next
does it. What is left to one who was killed, and is not tried again, stays in the folder until somebody asks the same;
Kubernetes removes the job with its last Workflow.

A folder of its own for each try was rejected: a try would bring the inputs again. To demand a volume that all nodes
mount was rejected: it needs a storage class that few clusters have, and object storage is where the artifacts are;
where there is one, `shared_root` may lie on it. Owners as the only list of who waits were rejected: a failed run's
Workflow stays for days.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from natix_lib import storage
from natix_lib.config.hardware import Nodes
from natix_lib.contracts import ARTIFACTS
from natix_lib.distributed import jobs
from natix_lib.distributed.exchange import FAULT, FIGURES, INPUTS, REQUEST, TENSORS, Answer, answer
from natix_lib.distributed.jobs import COMPLETE, FAILED, Job, ending, outcome
from natix_lib.distributed.life import ABANDONED, REMOVING, Waiting, is_abandoned
from natix_lib.distributed.node_log import NodeLog
from natix_lib.errors import NatixError, TrainingError
from natix_lib.files import JsonDict, canonical_json, sha256_bytes, sha256_file, write_json
from natix_lib.progress import WARNING
from natix_lib.repeats import DELIVERY, repeated
from natix_lib.stopping import stoppable

LAST_LOOKS = 3  # at the log of a job that is over, while it breaks off
TRIES = 10  # to join a job that others change, make or remove at the same time


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
    job = Job(name)

    def create() -> bool:
        _ask(uri, request, inputs)
        return job.create([worker, uri], num_gpus, nodes)

    waiting, removing = Waiting(uri), Waiting(uri, REMOVING)
    with tempfile.TemporaryDirectory() as scratch, waiting, _left_when_told_to_stop(job, uri, waiting):
        _await_removal(name, removing)
        ended = ""
        while not ended and not _is_answered(uri):
            state = _joined(job, uri, create)
            print(f"TrainJob {name}: {nodes.num_nodes} nodes, {request['processes']} processes on each", flush=True)
            ended = _waited(job, state, nodes)
            if ended and is_abandoned(uri):
                ended = ""  # it gave up just before this launcher came
        result = _answer(name, uri, ended == FAILED, Path(scratch))  # the job without one is kept, until the next try
        waiting.end()
        try:
            _left(job, uri, waiting, removing)
        except NatixError as error:
            print(f"{WARNING}{error}; TrainJob {name} or its folder {uri} is left behind", flush=True)
        return result


def job_name(step: str, request: JsonDict, inputs: Mapping[str, str], nodes: Nodes) -> str:
    """A name that is the same for the same question, inputs, image and nodes, and that Kubernetes takes."""
    content = {
        name: sha256_file(Path(path) / ARTIFACTS[name].manifest if ARTIFACTS[name].manifest else path)
        for name, path in inputs.items()
    }
    question = canonical_json({**request, INPUTS: content, "image": nodes.image, "nodes": nodes.num_nodes})
    return f"natix-{step}-{sha256_bytes(question)[:16]}"


def _ask(uri: str, request: JsonDict, inputs: Mapping[str, str]) -> None:
    """Put request and inputs into the job's folder, where no earlier failure may be left."""
    for file in (FAULT, ABANDONED):
        storage.remove_file(f"{uri}/{file}")
    for artifact, path in inputs.items():
        storage.mirror(path, f"{uri}/{INPUTS}/{artifact}")
    with tempfile.TemporaryDirectory() as scratch:
        write_json(Path(scratch) / REQUEST, request)
        storage.mirror(Path(scratch) / REQUEST, f"{uri}/{REQUEST}")


def _joined(job: Job, uri: str, create: Callable[[], bool]) -> JsonDict:
    """The job that this launcher waits for, found or made, and adopted.

    One that is over when it is first seen, and has no answer, is made anew; one that others make at this moment is
    adopted, however soon it is over.
    """
    for number in range(TRIES):
        state = job.read()
        if state is None:
            create()
        elif ending(state):
            if not job.is_gone(state):  # who closed it was killed
                job.delete(state)
        elif number == 0 and outcome(state) and not _is_answered(uri):
            job.delete(state)
        elif job.adopt(state):
            return state
    raise TrainingError(f"TrainJob {job.name} was made and removed by others {TRIES} times: try again")


def _waited(job: Job, state: JsonDict, nodes: Nodes) -> str:
    """How the job ends, COMPLETE or FAILED, with its first node's log printed; "" when it became another one."""
    until = time.monotonic() + nodes.timeout_hours * 3600
    log, last_looks = NodeLog(job, nodes.num_nodes), LAST_LOOKS
    while time.monotonic() < until:
        now = job.read()
        if now is None:
            raise TrainingError(f"TrainJob {job.name} was deleted while it ran")
        if now["metadata"]["uid"] != state["metadata"]["uid"]:
            return ""
        whole = log.show()
        if (ended := outcome(now)) and (whole or last_looks == 0):
            return ended
        last_looks -= bool(ended)
        time.sleep(jobs.POLL_SECONDS)
    raise TrainingError(f"TrainJob {job.name} was not done in hardware.gpu_timeout_hours {nodes.timeout_hours:g}")


def _is_answered(uri: str) -> bool:
    return FIGURES in repeated(partial(storage.file_names, uri), DELIVERY)


def _answer(name: str, uri: str, failed: bool, folder: Path) -> Answer:
    """The answer in the job's folder, or the reason why there is none."""
    there = repeated(partial(storage.file_names, uri), DELIVERY)
    answered = FIGURES in there
    for file in ({TENSORS, FIGURES} if answered else {FAULT}).intersection(there):
        path = repeated(partial(storage.fetch_file, f"{uri}/{file}", folder), DELIVERY)
        if path.parent != folder:  # a volume's file lies where it is
            shutil.copyfile(path, folder / file)
    if failed and not (answered or FAULT in there):
        raise TrainingError(f"TrainJob {name} failed and gave no reason: see the logs of its pods")
    return answer(folder, 0)


def _await_removal(name: str, removing: Waiting) -> None:
    """Wait until nobody removes the folder; who begins later sees this one's mark."""
    while removing.living():
        print(f"TrainJob {name} is being removed by another who waited for it: waiting until it is gone", flush=True)


def _left(job: Job, uri: str, waiting: Waiting, removing: Waiting) -> None:
    """Remove the folder and then the job, unless others wait for it; this one's mark is gone already."""
    with removing:
        for _ in range(TRIES):
            state = job.read()
            if others := waiting.living():
                if state is None or _released(job, state, others):
                    return
            elif state and ending(state) and removing.others():
                return  # of two who were done at once the other one
            elif state is None or ending(state) or job.close(state):
                _remove_folder(uri)
                for marks in (waiting, removing):
                    marks.remove_dead()
                removing.end()  # who waits for that need not wait for the job
                if state:
                    job.delete(state)
                return


def _remove_folder(uri: str) -> None:
    """Remove what lies in the job's folder but marks; the answer last, its figures before its tensors."""
    storage.remove_folder(f"{uri}/{INPUTS}")
    for file in (REQUEST, FAULT, ABANDONED, FIGURES, TENSORS):
        storage.remove_file(f"{uri}/{file}")


def _released(job: Job, state: JsonDict, others: set[str]) -> bool:
    released = job.release(state)
    if released:
        print(f"TrainJob {job.name} is left to {len(others)} more that wait for it", flush=True)
    return released


@contextmanager
def _left_when_told_to_stop(job: Job, uri: str, waiting: Waiting) -> Iterator[None]:
    """Delete the job when this process is told to stop, and when a person interrupts it; its inputs stay."""
    with stoppable():
        try:
            yield
        except SystemExit:
            waiting.end()
            try:
                _stop(job, uri, waiting)
            except NatixError as error:
                print(f"{WARNING}{error}; TrainJob {job.name} ends by itself", flush=True)
            raise


def _stop(job: Job, uri: str, waiting: Waiting) -> None:
    """Delete the job, unless it has computed its answer or others may wait: there is no time to look for long."""
    for _ in range(TRIES):
        state = job.read()
        if state is None or ending(state) or outcome(state) == COMPLETE or FIGURES in storage.file_names(uri):
            return
        if others := waiting.others():
            if _released(job, state, others):
                return
        elif job.close(state):
            job.delete(state)
            return
