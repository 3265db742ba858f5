"""A node of a TrainJob: fetches the question once for all its processes, runs them, and brings the answer back.

It also checks the inputs' hashes, once for all its processes, and ends when nobody waits for the answer any more
(`life.py`). Kubeflow Trainer tells torchrun its place by `PET_...` variables: nodes, this node's number, the first
node's address. The worker module comes from the job's command, never from the request.
"""

import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from natix_lib import storage
from natix_lib.contracts import ARTIFACTS, read_manifest
from natix_lib.distributed.exchange import FAULT, FIGURES, INPUTS, REQUEST, TENSORS, leave_reason
from natix_lib.distributed.life import end_when_abandoned, is_abandoned
from natix_lib.distributed.processes import leave, say_device, torchrun
from natix_lib.distributed.template import take_store_keys
from natix_lib.errors import NatixError, StorageError
from natix_lib.files import read_json, write_json
from natix_lib.repeats import DELIVERY, repeated
from natix_lib.stopping import stoppable


def serve(worker: str, uri: str, folder: Path) -> int:
    """Do what a request in object storage asks.

    Args:
        worker: Name of the module that each process runs.
        uri: A folder with a request and its inputs.
        folder: An empty folder of this machine to work in.

    Returns:
        The processes' exit code; 2 when the question cannot be fetched or trusted.
    """
    code = 2
    try:
        request = read_json(storage.fetch_file(f"{uri}/{REQUEST}", folder))
        say_device(request["processes"])
        inputs = {name: str(_fetch_input(name, uri, folder)) for name in request[INPUTS]}
        write_json(folder / REQUEST, {**request, INPUTS: inputs})
        code = torchrun(worker, folder, f"--nproc-per-node={request['processes']}")
    except NatixError as error:
        leave_reason(folder, error)
    for name in (FAULT, TENSORS, FIGURES):  # figures last: they say that the answer is whole
        if (folder / name).is_file():
            repeated(partial(storage.mirror, folder / name, f"{uri}/{name}"), DELIVERY)
    return code


def _fetch_input(name: str, uri: str, folder: Path) -> Path:
    """Fetch an input artifact, and check the hashes of a folder's files here, once for all processes."""
    source = f"{uri}/{INPUTS}/{name}"
    if not ARTIFACTS[name].manifest:
        return storage.fetch_file(source, folder / INPUTS)
    path = storage.fetch_folder(source, folder / INPUTS / name)
    read_manifest(path, name)
    return path


def main() -> None:
    """Serve the worker and the address that the command line names; what nobody waits for ends with exit code 0."""
    worker, uri = sys.argv[1:]
    take_store_keys()
    print(f"node {os.environ.get('PET_NODE_RANK', '0')} of {os.environ.get('PET_NNODES', '1')}", flush=True)
    with stoppable(), tempfile.TemporaryDirectory() as scratch:  # the first process of a pod ignores SIGTERM otherwise
        abandoned = end_when_abandoned(uri)
        try:
            code = serve(worker, uri, Path(scratch))
            if code and _ended_by_another(uri):
                code = 0
        except SystemExit as stop:
            code = 0 if abandoned.is_set() else int(str(stop.code))
    leave(code)  # torch takes seconds to be taken down


def _ended_by_another(uri: str) -> bool:
    """Whether another node found that nobody waits, and took this one's processes with it before this one looked."""
    try:
        return is_abandoned(uri)
    except StorageError:
        return False


if __name__ == "__main__":
    main()
