"""A node of a TrainJob: fetches the question once for all its processes, runs them, and brings the answer back.

Kubeflow Trainer tells torchrun its place by `PET_...` variables: nodes, this node's number, the first node's address.
"""

import os
import sys
import tempfile
from pathlib import Path

from natix_lib import storage
from natix_lib.contracts import ARTIFACTS, read_manifest
from natix_lib.distributed.job import FACTS, FAULT, REQUEST, TENSORS, leave_reason, say_when_no_gpu, torchrun
from natix_lib.errors import NatixError
from natix_lib.files import read_json, write_json
from natix_lib.stopping import stoppable

INPUTS = "inputs"  # the folder of input artifacts beside the request


def serve(uri: str, folder: Path) -> int:
    """Do what `uri`, a `gs://` folder with a request and its inputs, asks; gives the processes' exit code."""
    code = 2
    try:
        request = read_json(storage.fetch_file(f"{uri}/{REQUEST}", folder))
        say_when_no_gpu(request["processes"])
        inputs = {}
        for name in request[INPUTS]:
            source = f"{uri}/{INPUTS}/{name}"
            if ARTIFACTS[name].manifest:
                found = storage.fetch_folder(source, folder / INPUTS / name)
                read_manifest(found, name)  # once a node: its processes do not hash again
            else:
                found = storage.fetch_file(source, folder / INPUTS)
            inputs[name] = str(found)
        write_json(folder / REQUEST, {**request, INPUTS: inputs})
        code = torchrun(folder, f"--nproc-per-node={request['processes']}")
    except NatixError as error:
        leave_reason(folder, error)
    for name in (FAULT, TENSORS, FACTS):  # facts last: they say that the answer is whole
        if (folder / name).is_file():
            storage.mirror(folder / name, f"{uri}/{name}")
    return code


def main() -> None:
    """Serve the address that the command line names."""
    print(f"node {os.environ.get('PET_NODE_RANK', '0')} of {os.environ.get('PET_NNODES', '1')}", flush=True)
    with stoppable(), tempfile.TemporaryDirectory() as scratch:  # the first process of a pod ignores SIGTERM otherwise
        code = serve(sys.argv[1], Path(scratch))
    sys.exit(code)


if __name__ == "__main__":
    main()
