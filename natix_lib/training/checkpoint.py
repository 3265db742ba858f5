"""Checkpoint files of adapt and train: tensors and JSON in one safetensors file, which tells whether it is as written.

A state is written as it is: dicts, lists, tuples, numbers and texts as JSON in the header, each tensor in it under a
name. So an optimiser's, a schedule's and a scaler's own `state_dict` go in and come out, whatever they hold, and
nothing is executed when a file is read, as a pickle does. Floats come back to the last bit.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from natix_lib import storage
from natix_lib.errors import ContractError


def packed(value: Any, tensors: dict[str, Tensor], name: str = "state") -> Any:
    """A state as JSON; its tensors go into `tensors`, by the way that leads to each, below `name`.

    Raises:
        TypeError: If something in it is neither a container, a tensor, a number, a text nor None.
    """
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, packed(item, tensors, f"{name}.{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [packed(item, tensors, f"{name}.{number}") for number, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}, which no checkpoint holds")


def unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that `packed` was given."""
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "dict":
        return {key: unpacked(item, tensors) for key, item in held}
    items = [unpacked(item, tensors) for item in held]
    return items if kind == "list" else tuple(items)


def tensors_bytes(artifact: str, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> bytes:
    """A checkpoint file.

    Args:
        artifact: What kind of checkpoint it is.
        tensors: Tensors by name, on any device; they are copied.
        header: Texts by name.
    """
    kept = {name: value.cpu().contiguous() for name, value in tensors.items()}
    content: bytes = save(kept, {**header, "artifact": artifact, "sha256": _sha256(kept, header)})
    return content


def read_tensors(artifact: str, place: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, on the CPU, and header of the checkpoint file at `place`, a path or a bucket's address.

    Raises:
        ContractError: If it is no checkpoint of this kind, or not as it was written.
        StorageError: If the store does not give it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = storage.fetch_file(place, scratch)
        try:
            with safe_open(path, framework="pt") as file:
                header = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError) as error:
            raise ContractError(f"checkpoint {place} cannot be read: {error}") from error
    stored, sha256 = header.pop("artifact", "none"), header.pop("sha256", "")
    if stored != artifact:
        raise ContractError(f"{place} is no {artifact}, its artifact is {stored}")
    if sha256 != _sha256(tensors, header):
        raise ContractError(f"checkpoint {place} was changed after it was written")
    return tensors, header


def _sha256(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps([sorted(header.items()), sorted(tensors)]).encode())
    for _, value in sorted(tensors.items()):
        digest.update(str((value.dtype, tuple(value.shape))).encode())
        content: Any = value.reshape(-1).view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()
