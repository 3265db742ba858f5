"""Which packages a command needs beside those that natix itself brings, and the one line that says how to install them.

The base install scores: predict, verify, config, decisions. All else is an extra, one word for one job: `train` is all
that `natix run` needs on one machine, KFP's local runner included, because whoever trains has no use for half of it;
`pipelines` adds what compiling for a cluster needs. A command is refused before it reads or writes anything, and told
by what it would import, so an environment that someone put together by hand is not refused for what is never used.
"""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

from natix_lib.contracts import STEPS
from natix_lib.errors import ConfigError

EXTRAS = {  # extra of natix to the modules that it brings; any other module comes with natix itself
    "train": (
        "datasets", "huggingface_hub", "kfp", "lightning", "matplotlib", "onnx", "onnxscript", "peft",
        "pyarrow", "safetensors", "sklearn", "torch", "transformers",
    ),
    "pipelines": ("kfp", "kfp.kubernetes"),
    "gcs": ("google.cloud.storage",),
    "s3": ("boto3",),
    "vertex": ("google.cloud.aiplatform",),
    "nodes": ("kubeflow.trainer",),
    "serve": ("anyio", "starlette", "uvicorn"),
}  # fmt: skip
CLIENTS = {"gs": "google.cloud.storage", "s3": "boto3"}  # scheme of a bucket to the module that reads it
OF_A_RUN = EXTRAS["train"]
BACKBONE = ("torch", "transformers", "safetensors")
PAGE = ("pyarrow", "matplotlib")
NEEDS = {  # command to the modules that it imports; a step that is not here needs all of a run
    "run": OF_A_RUN,
    "demo": OF_A_RUN,
    "backbone": BACKBONE,
    "serve": EXTRAS["serve"],
    "ingest": ("pyarrow", "datasets"),
    "split": ("datasets", *PAGE),
    "data check": ("datasets", *PAGE),
    "fetch": BACKBONE,
    "adapt": (*BACKBONE, *PAGE, "lightning", "peft", "sklearn"),
    "train": (*BACKBONE, *PAGE, "sklearn"),
    "sweep": ("safetensors", *PAGE),
    "calibrate": ("safetensors", *PAGE),
    "export": (*BACKBONE, "pyarrow", "onnx", "onnxscript"),
    "evaluate": PAGE,
    "recalibrate": ("datasets", "kfp", "safetensors", *PAGE),
    "divide": ("datasets", *PAGE),
    "score": ("safetensors", "pyarrow"),
    "renew": ("safetensors", "pyarrow"),
}


def is_here(module: str) -> bool:
    """Whether a module can be imported; it is not imported itself, its parents are."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def require(*modules: str) -> None:
    """Refuse to begin what a missing package would end.

    Raises:
        ConfigError: Naming the package and the extra that brings it.
    """
    for module in modules:
        if not is_here(module):
            raise missing(module)


def missing(module: str) -> ConfigError:
    """The error of a module that is not installed, or of one in it."""
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    known = [(name, extra) for name in names for extra, modules in EXTRAS.items() if name in modules]
    if parts[0] == "google":
        known.append(("google.cloud.storage", "gcs"))
    package, extra = known[0] if known else (parts[0], "")
    return ConfigError(f"the package {package} is missing here: pip install 'natix{extra and f'[{extra}]'}'")


def needing(command: str, function: Callable[..., None]) -> Callable[..., None]:
    """`function`, which first makes sure that what the command needs is here."""

    @functools.wraps(function)
    def checked(*arguments: Any, **values: Any) -> None:
        require(*NEEDS.get(command, OF_A_RUN if command in STEPS else ()))
        function(*arguments, **values)

    return checked


def require_places(settings: Any) -> None:
    """Refuse a config that names a bucket when what reads buckets is not installed.

    Args:
        settings: A checked config.

    Raises:
        ConfigError: If an address stands in it and the package that reads such buckets is not here.
    """
    from natix_lib import grammar

    schemes = {grammar.scheme(text) for text in _texts(settings.model_dump())}
    require(*(module for scheme, module in CLIENTS.items() if scheme in schemes))


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for child in value.values() for text in _texts(child)]
    return [str(value)] if isinstance(value, str) else []
