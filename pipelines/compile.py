"""`make compile`: the pipeline as YAML for Kubeflow and Vertex, the same bytes for the same config.

Each target gets the training in two files from one definition, without and with ExPLoRA, and the recalibration. KFP
heads a file with a comment that lists the defaults in an order that changes from process to process; it is replaced by
the file's name. Each component also gets a file of its own, for use in other pipelines; it is the same for all targets,
because only a task has resources. Beside it lies the JSON Schema of its settings, which to KFP are any mapping.

With `--release` every image must be named by its digest. KFP's cache key holds the image's text, not its content: under
a tag that moves, a new run would be served what an older image has made.
"""

import argparse
import copy
import importlib
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from kfp import compiler
from kfp.dsl.python_component import PythonComponent

from natix_lib import config
from natix_lib.contracts import TASKS
from natix_lib.errors import ConfigError, NatixError
from natix_lib.files import canonical_json, write_bytes
from natix_pipelines import recalibration
from natix_pipelines.reference import settings_schema
from natix_pipelines.targets import KUBEFLOW, VERTEX, Target
from natix_pipelines.training import build, file_stem

COMPONENTS = ("check", "check_recalibration", *TASKS)
DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


def compiled(target: Target, settings: config.Config, with_explora: bool) -> str:
    """The YAML of a variant of the pipeline for a target."""
    model = settings.model.model_copy(update={"init_from_explora": with_explora})
    pipeline = build(target, settings.model_copy(update={"model": model}))
    return _yaml(pipeline, f"natix-{file_stem(with_explora)} for {target.name}")


def compiled_recalibration(target: Target, settings: config.Config) -> str:
    """The YAML of the pipeline that renews a bundle's policy, for a target."""
    return _yaml(recalibration.build(target, settings), f"natix-{recalibration.FILE_STEM} for {target.name}")


def compiled_component(target: Target, step: str) -> str:
    """The YAML of a component, with the target's image."""
    component: Any = getattr(importlib.import_module(f"natix_components.{step}"), step)
    specification = copy.deepcopy(component.component_spec)
    specification.implementation.container.image = target.image(step)
    return _yaml(PythonComponent(specification, component.python_func), f"component {step} of natix")


def require_digests(images: dict[str, str]) -> None:
    """Refuse images of a release that are named by a tag.

    Args:
        images: Images by the option that names them.

    Raises:
        ConfigError: Naming every image that has no digest.
    """
    if wrong := [f"{option} {image}" for option, image in images.items() if not DIGEST.fullmatch(image)]:
        raise ConfigError(
            "a release needs images named by their digest, NAME@sha256:<64 hex digits>, because KFP's cache would "
            f"serve what an older image under the same tag has made: got {', '.join(wrong)}"
        )


def main() -> None:
    """Write the three pipelines of each target below `OUTPUT/<target>/`, and the components."""
    parser = argparse.ArgumentParser(description="Compile the pipeline.")
    parser.add_argument("--config", type=Path, required=True, help="YAML whose values become the defaults")
    parser.add_argument("--target", choices=(KUBEFLOW, VERTEX, "all"), default="all")
    parser.add_argument("--image-cpu", required=True)
    parser.add_argument("--image-gpu", required=True)
    parser.add_argument("--release", action="store_true", help="refuse images that are not named by their digest")
    parser.add_argument("--output", type=Path, default=Path("build"))
    parser.add_argument("--components", type=Path, help="folder for a file of each component")
    arguments = parser.parse_args()
    try:
        if arguments.release:
            require_digests({"--image-cpu": arguments.image_cpu, "--image-gpu": arguments.image_gpu})
        settings = config.load(arguments.config)
        names = (KUBEFLOW, VERTEX) if arguments.target == "all" else (arguments.target,)
        targets = [Target(name, arguments.image_cpu, arguments.image_gpu) for name in names]
        files = {
            arguments.output / target.name / f"{file_stem(explora)}.yaml": compiled(target, settings, explora)
            for target in targets
            for explora in (False, True)
        }
        files |= {
            arguments.output / target.name / f"{recalibration.FILE_STEM}.yaml": compiled_recalibration(target, settings)
            for target in targets
        }
        if arguments.components:
            files |= {
                arguments.components / f"{step}.yaml": compiled_component(targets[0], step) for step in COMPONENTS
            }
            files |= {
                arguments.components / f"{step}.settings.schema.json": canonical_json(settings_schema(step)).decode()
                for step in TASKS
            }
        for path, text in files.items():
            write_bytes(path, text.encode())
            print(path)
    except NatixError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _yaml(compilable: Any, title: str) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "compiled.yaml"
        compiler.Compiler().compile(compilable, str(path))
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    body = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return f"# {title}; written by `make compile`\n" + "".join(lines[body:])


if __name__ == "__main__":
    main()
