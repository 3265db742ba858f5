"""`make submit`: compile the pipeline and start a run of it, its parameters checked before anything is sent.

On Kubeflow the run is started by `kfp run submit`, which also reads KFP_NAMESPACE, KFP_EXISTING_TOKEN and its other
options from the environment; on Vertex by a `PipelineJob`. PARAMS holds what this run changes:

    PARAMS='scrc={"alpha": 0.02} num_gpus=2 data_version=2026-05'

It is read here, not by kfp's command, because that has two traps. To it `num_gpus=2` is a number, and a number gives a
task no GPU and no error; here a value has the type of its parameter. And there a section replaces the compiled one, so
that `scrc={"alpha": 0.02}` would set all other keys of the section back to their defaults; here they stay the config's.
Overrides of the config before it is compiled, `--set`, were rejected: Kubeflow would not show what the run has changed,
and a data version is no key of the config.
"""

import argparse
import difflib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from natix_lib import config, grammar
from natix_lib.config.section import shown
from natix_lib.errors import ConfigError, NatixError
from natix_lib.files import JsonDict, write_bytes
from natix_lib.steps import check
from natix_lib.strict_yaml import read_yaml_documents
from pipelines.compile import compiled, require_digests
from pipelines.targets import KUBEFLOW, VERTEX, Target
from pipelines.training import pipeline_name

KEY = re.compile(r"(?:^|\s+)(\w+)=")
LABEL = re.compile(r"[a-z0-9_-]{1,63}")


def run_parameters(text: str, package: str) -> JsonDict:
    """The parameters of a run.

    Args:
        text: `key=value ...`; the value of a section is a JSON object, whose keys replace those of the compiled
            section, and any other value is a text, with or without quotes.
        package: YAML of the compiled pipeline.

    Returns:
        The parameters that `text` names, sections whole.

    Raises:
        ConfigError: If a parameter is unknown or of another type, or the sections together break a rule.
    """
    root = read_yaml_documents(package, "the compiled pipeline")[0]["root"]
    known = root["inputDefinitions"]["parameters"]
    found: JsonDict = {}
    for name, value in _items(text.strip()):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known ones: {', '.join(sorted(known))}"
            raise ConfigError(f"PARAMS {name} is not a parameter of the pipeline, {hint}")
        is_section = known[name]["parameterType"] == "STRUCT"
        if isinstance(value, dict) != is_section:
            raise ConfigError(
                f"PARAMS {name} must be {'a JSON object' if is_section else 'a text'}, got {shown(value)}"
            )
        found[name] = _over(known[name]["defaultValue"], value) if is_section else value
    defaults = {name: parameter["defaultValue"] for name, parameter in known.items()}
    sections = {name: {**defaults, **found}[name] for name in config.SECTIONS if name in known}
    check.run(
        sections, root["dag"]["tasks"]["check"]["inputs"]["parameters"]["with_explora"]["runtimeValue"]["constant"]
    )
    _check_gpus(found.get("num_gpus", defaults["num_gpus"]), defaults["num_gpus"])
    return found


def _items(text: str) -> Iterator[tuple[str, Any]]:
    position = 0
    while position < len(text):
        key = KEY.match(text, position)
        if not key:
            raise ConfigError(f"PARAMS takes key=value, got {shown(text[position:].strip())}")
        position = key.end()
        if text[position : position + 1] in ("{", '"'):
            try:
                value, position = json.JSONDecoder(object_pairs_hook=_object).raw_decode(text, position)
            except (ValueError, RecursionError) as error:  # also of integers and levels that are too many
                reason = getattr(error, "msg", None) or error
                raise ConfigError(f"PARAMS {key[1]} is not JSON: {reason} in {shown(text[key.end() :])}") from error
        else:
            value = re.split(r"\s", text[position:], maxsplit=1)[0]
            position += len(value)
        yield key[1], value


def _object(pairs: list[tuple[str, Any]]) -> JsonDict:
    """A JSON object whose keys differ."""
    names = [name for name, _ in pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"the key {min(twice)} stands twice")
    return dict(pairs)


def _over(default: JsonDict, given: JsonDict) -> JsonDict:
    """`default` with the values of `given`, section by section."""
    inner = {
        key: _over(default[key], value)
        for key, value in given.items()
        if isinstance(value, dict) and isinstance(default.get(key), dict)
    }
    return {**default, **given, **inner}


def _check_gpus(wanted: str, compiled_in: str) -> None:
    if not re.fullmatch("[0-9]{1,4}", wanted):
        raise ConfigError(f"PARAMS num_gpus must be a whole number, got {shown(wanted)}")
    if int(wanted) and not int(compiled_in):
        raise ConfigError(
            f"PARAMS num_gpus is {wanted}, but with hardware.num_gpus 0 no step has been given a GPU node"
        )


def to_kubeflow(package: Path, parameters: JsonDict, experiment: str, run: str, endpoint: str) -> int:
    """Start a run on Kubeflow; returns the exit status of kfp's command, which prints the run."""
    if not endpoint:
        raise ConfigError("submitting to kubeflow needs KFP_ENDPOINT, the address of KFP's API: http://localhost:8080")
    command = [str(Path(sys.executable).with_name("kfp")), "--endpoint", endpoint, "run", "submit"]
    command += ["-e", experiment, "-r", run, "-f", str(package)]
    command += [f"{name}={json.dumps(value)}" for name, value in parameters.items()]
    return subprocess.run(command, check=False).returncode


def to_vertex(
    package: Path,
    parameters: JsonDict,
    experiment: str,
    run: str,
    project: str,
    region: str,
    pipeline_root: str,
    service_account: str,
) -> str:
    """Start a run on Vertex and return its resource name; the experiment is a label of the run.

    Raises:
        NatixError: If something is not named, or Vertex refuses the run.
    """
    needed = {"PROJECT": project, "REGION": region, "PIPELINE_ROOT": pipeline_root}
    if missing := [name for name, value in needed.items() if not value]:
        raise ConfigError(f"submitting to vertex needs {', '.join(needed)}: {', '.join(missing)} missing")
    try:
        grammar.bucket_and_name(f"{pipeline_root.rstrip('/')}/run")  # a bucket alone will do
    except ValueError as error:
        raise ConfigError(f"PIPELINE_ROOT {error}, got {shown(pipeline_root)}") from error
    if not LABEL.fullmatch(experiment):
        raise ConfigError(
            f"EXPERIMENT is a label on vertex, up to 63 lower-case letters, digits, - and _, got {experiment!r}"
        )
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import aiplatform
    except ModuleNotFoundError as error:
        raise ConfigError("submitting to vertex needs google-cloud-aiplatform: pip install 'natix[vertex]'") from error
    try:
        job = aiplatform.PipelineJob(
            display_name=run,
            template_path=str(package),
            pipeline_root=pipeline_root,
            parameter_values=parameters,
            labels={"experiment": experiment},
            project=project,
            location=region,
        )
        job.submit(service_account=service_account or None)
    except (GoogleAPIError, GoogleAuthError, OSError, ValueError, RuntimeError) as error:
        raise NatixError(f"Vertex has not taken the run {run}: {error}") from error
    return str(job.resource_name)


def main() -> None:
    """Compile a variant of the pipeline to `OUTPUT/<target>/`, check the parameters and start the run."""
    parser = argparse.ArgumentParser(description="Start a run of the pipeline.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--target", required=True, help="kubeflow or vertex")
    parser.add_argument("--image-cpu", required=True)
    parser.add_argument("--image-gpu", required=True)
    parser.add_argument("--release", action="store_true", help="refuse images that are not named by their digest")
    parser.add_argument("--explora", choices=("", "0", "1"), default="", help="the variant; empty takes the config's")
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--parameters", default="", help="key=value ...")
    parser.add_argument("--endpoint", default="", help="of KFP's API")
    parser.add_argument("--project", default="")
    parser.add_argument("--region", default="")
    parser.add_argument("--pipeline-root", default="")
    parser.add_argument(
        "--service-account", default="", help="that the steps run as; empty takes the project's default"
    )
    parser.add_argument("--output", type=Path, default=Path("build"))
    arguments = parser.parse_args()
    try:
        sys.exit(_submit(arguments))
    except NatixError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # kfp's command is not there
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)


def _submit(arguments: argparse.Namespace) -> int:
    if arguments.target not in (KUBEFLOW, VERTEX):
        raise ConfigError(f"submitting needs TARGET {KUBEFLOW} or {VERTEX}, got {arguments.target!r}")
    if arguments.release:
        require_digests({"--image-cpu": arguments.image_cpu, "--image-gpu": arguments.image_gpu})
    settings = config.load(arguments.config)
    explora = settings.model.init_from_explora if not arguments.explora else arguments.explora == "1"
    text = compiled(Target(arguments.target, arguments.image_cpu, arguments.image_gpu), settings, explora)
    parameters = run_parameters(arguments.parameters, text)
    package = arguments.output / arguments.target / f"{pipeline_name(explora)}.yaml"
    write_bytes(package, text.encode())
    common = package, parameters, arguments.experiment, arguments.run
    if arguments.target == KUBEFLOW:
        return to_kubeflow(*common, arguments.endpoint)
    print(to_vertex(*common, arguments.project, arguments.region, arguments.pipeline_root, arguments.service_account))
    return 0


if __name__ == "__main__":
    main()
