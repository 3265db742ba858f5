"""The folder in which processes find what they are asked, and leave the answer or the reason why there is none.

The question is `request.json`; the answer is tensors and figures, written by the first process, or the reason of a
failure, which is raised again as what it was. A TrainJob's nodes have such folders of their own, which object storage
brings to them and back. A request holds settings and inputs and names no code: whoever can write to a bucket must not
be able to choose what is imported.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from natix_lib.errors import NatixError, TrainingError
from natix_lib.files import JsonDict, read_json, write_json

REQUEST, TENSORS, FIGURES, FAULT = "request.json", "tensors.safetensors", "figures.json", "fault.json"
INPUTS = "inputs"  # of a request: the paths of input artifacts by name; for a node, their folder beside the request

Answer = tuple[dict[str, Tensor], JsonDict]
Compute = Callable[[Mapping[str, Any], Mapping[str, str]], Answer]


def leave_answer(folder: Path, tensors: Mapping[str, Tensor], figures: JsonDict) -> None:
    """Leave an answer in a folder; the figures last, they say that it is whole."""
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / TENSORS)
    write_json(folder / FIGURES, figures)


def leave_reason(folder: Path, error: NatixError) -> None:
    """Leave why there is no answer, for `answer`."""
    write_json(folder / FAULT, {"error": type(error).__name__, "message": str(error)})


def answer(folder: Path, code: int) -> Answer:
    """The answer in a folder, of processes that ended with exit code `code`.

    Raises:
        NatixError: The reason that a process has left.
        TrainingError: If none has.
    """
    if (folder / FAULT).is_file():
        fault = read_json(folder / FAULT)
        errors = {error.__name__: error for error in NatixError.__subclasses__()}
        raise errors.get(fault["error"], NatixError)(fault["message"])
    if code or not (folder / FIGURES).is_file():
        raise TrainingError(f"a training process ended with exit code {code} and gave no reason")
    return load_file(folder / TENSORS), read_json(folder / FIGURES)
