"""Which packages a command needs beside natix's own, and the one line that says how to install them."""

import importlib.util

from natix_lib.errors import ConfigError

EXTRAS = {  # package to the extra of natix that brings it; any other comes with natix itself
    "kfp": "pipelines",
    "kubeflow": "nodes",
    "google": "gcs",
    "anyio": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
}
OF_A_RUN = ("torch", "transformers", "datasets", "onnx", "onnxscript", "onnxruntime", "sklearn", "matplotlib", "kfp")


def require(*packages: str) -> None:
    """Refuse to begin what a missing package would end.

    Raises:
        ConfigError: Naming the package and the extra that brings it.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise missing(package)


def missing(module: str) -> ConfigError:
    """The error of a package that is not installed."""
    package = module.partition(".")[0]
    extra = f"[{EXTRAS[package]}]" if package in EXTRAS else ""
    return ConfigError(f"the package {package} is missing here: pip install 'natix{extra}'")
