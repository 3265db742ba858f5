"""`make compile`: the pipeline as YAML for Kubeflow and Vertex, the same bytes for the same config.

Each target gets two files from one definition, without and with ExPLoRA. KFP heads a file with a comment that lists the
defaults in an order that changes from process to process; it is replaced by the pipeline's name.
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
from pipelines.training import build, pipeline_name


def compiled(target: Target, settings: config.Config, with_explora: bool) -> str:
    """The YAML of a variant of the pipeline for a target."""
    model = settings.model.model_copy(update={"init_from_explora": with_explora})
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "pipeline.yaml"
        compiler.Compiler().compile(build(target, settings.model_copy(update={"model": model})), str(path))
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    body = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return f"# natix-{pipeline_name(with_explora)} for {target.name}; written by `make compile`\n" + "".join(
        lines[body:]
    )


def main() -> None:
    """Write `OUTPUT/<target>/training.yaml` and `training-explora.yaml` for each target."""
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
            target = Target(name, arguments.image_cpu, arguments.image_gpu)
            for with_explora in (False, True):
                path = arguments.output / name / f"{pipeline_name(with_explora)}.yaml"
                write_bytes(path, compiled(target, settings, with_explora).encode())
                print(path)
    except NatixError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
