"""`make compile`: the pipeline as YAML for Kubeflow and Vertex, the same bytes for the same config.

KFP heads the file with a comment that lists the defaults in an order that changes from process to process; it is
replaced by the pipeline's name. File names leave room for the variant with ExPLoRA, which comes with its step.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from kfp import compiler

from natix_lib import config
from natix_lib.errors import NatixError
from natix_lib.files import write_bytes
from pipelines.targets import KUBEFLOW, VERTEX, Target
from pipelines.training import NAME, build

FILE = "training.yaml"


def compiled(target: Target, settings: config.Config) -> str:
    """The pipeline's YAML for a target."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / FILE
        compiler.Compiler().compile(build(target, settings), str(path))
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    body = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return f"# {NAME} for {target.name}; written by `make compile`\n" + "".join(lines[body:])


def main() -> None:
    """Write `OUTPUT/<target>/training.yaml` for each target."""
    parser = argparse.ArgumentParser(description="Compile the pipeline.")
    parser.add_argument("--config", type=Path, required=True, help="YAML whose values become the defaults")
    parser.add_argument("--target", choices=(KUBEFLOW, VERTEX, "all"), default="all")
    parser.add_argument("--image-cpu", required=True)
    parser.add_argument("--image-gpu", required=True)
    parser.add_argument("--output", type=Path, default=Path("build"))
    arguments = parser.parse_args()
    try:
        settings = config.load(arguments.config)
        for name in (KUBEFLOW, VERTEX) if arguments.target == "all" else (arguments.target,):
            path = arguments.output / name / FILE
            write_bytes(path, compiled(Target(name, arguments.image_cpu, arguments.image_gpu), settings).encode())
            print(path)
    except NatixError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
