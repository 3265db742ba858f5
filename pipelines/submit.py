"""`make submit`: compile the pipeline and start a run of it, its config checked before anything is sent.

On Kubeflow the run is started by `kfp run submit`, which also reads KFP_NAMESPACE, KFP_EXISTING_TOKEN and its other
options from the environment; on Vertex by a `PipelineJob`. What this run changes is said as to `natix run`, with `--set
section.key=value`; make takes several in SET, quoted as in a shell:

    SET='scrc.alpha=0.02 hardware.num_gpus=2 "data.class_names=[None, Roadwork]"'

What it names, and nothing else, is sent as the run's parameters, those of `config.form`: `alpha` for scrc.alpha, and
`{"on_infeasible": "fail"}` as scrc for a key that has no parameter of its own. So "Compare runs" of the pipelines UI
shows what each run has changed. What is named is compiled in as well, since a key that must be given, such as
data.data_root, may stand nowhere else. The section `hardware` is compiled in alone, but for the GPU count, and so is
`data.shards`.

The same can be sent with kfp's own command, `kfp run submit ... alpha=0.02 'scrc={"on_infeasible": "fail"}'`, to which
`num_gpus=2` is a number. The API server of KFP 2.17, seen on a real cluster, refuses a number for a text and a
parameter that it does not know, and names it. Vertex' client refuses the unknown; what its service says to a number was
not tried. Here a text is sent as a text, and what is wrong is told before anything is sent.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from natix_lib import config, grammar
from natix_lib.config.form import FORM, FORM_SECTIONS, form, value_path
from natix_lib.config.section import shown
from natix_lib.errors import ConfigError, NatixError
from natix_lib.files import JsonDict, write_bytes
from natix_lib.survey.checkup import checkup, require_fit
from natix_pipelines.compile import compiled, require_digests
from natix_pipelines.targets import KUBEFLOW, VERTEX, Target
from natix_pipelines.training import file_stem

LABEL = re.compile(r"[a-z0-9_-]{1,63}")


def run_parameters(settings: config.Config, overrides: Iterable[str]) -> JsonDict:
    """The parameters of a run that its overrides name.

    Args:
        settings: The config with its overrides.
        overrides: Each `section.key=value`, or `section={...}`; `config.load` has taken them.

    Returns:
        Of `config.form`, each parameter of which a key is named, and of a section what else is named in it: of a
        mapping that is one value all of it, since what is sent of it replaces it whole.
    """
    values = form(settings)
    parameters: JsonDict = {}
    for override in overrides:
        path = value_path(override.partition("=")[0].strip())
        for name, keys in FORM.items():
            if any(f"{key}.".startswith(f"{path}.") and not _holds(values, key) for key in keys):
                parameters[name] = values[name]
        if _holds(values, path):
            _put(parameters, values, path.split("."))
    return parameters


def _holds(values: JsonDict, path: str) -> bool:
    """Whether a section of the form has a key, or is itself named."""
    value: object = {name: values[name] for name in FORM_SECTIONS}
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _put(parameters: JsonDict, values: JsonDict, path: list[str]) -> None:
    """Copy what lies at a path, and the mappings on the way to it."""
    for part in path[:-1]:
        parameters, values = parameters.setdefault(part, {}), values[part]
    parameters[path[-1]] = values[path[-1]]


def several(text: str) -> list[str]:
    """The overrides of a text that quotes them as a shell does.

    Raises:
        ConfigError: If a quotation does not end.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"SET takes section.key=value, quoted as in a shell: {error} in {shown(text)}") from error


def look_first(settings: config.Config, endpoint: str) -> None:
    """Say on stderr what of the cluster does not hold, or could not be looked at.

    Raises:
        ConfigError: If something surely falls short; `--no-doctor` does not look.
    """
    for line in require_fit(checkup(settings, os.environ.get("KFP_NAMESPACE", ""), endpoint)):
        print(line, file=sys.stderr)


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
        grammar.bucket_and_name(f"{pipeline_root.rstrip('/')}/run", ["gs"])  # a bucket alone will do
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
    """Check the config, compile a variant of the pipeline and start the run."""
    parser = argparse.ArgumentParser(description="Start a run of the pipeline.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--target", required=True, help="kubeflow or vertex")
    parser.add_argument("--image-cpu", required=True)
    parser.add_argument("--image-gpu", required=True)
    parser.add_argument("--release", action="store_true", help="refuse images that are not named by their digest")
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--set", action="append", default=[], help="section.key=value, over the config; repeatable")
    parser.add_argument("--sets", default="", help="several of them, quoted as in a shell")
    parser.add_argument("--endpoint", default="", help="of KFP's API")
    parser.add_argument("--no-doctor", action="store_true", help="do not look at the cluster first")
    parser.add_argument("--project", default="")
    parser.add_argument("--region", default="")
    parser.add_argument("--pipeline-root", default="")
    parser.add_argument(
        "--service-account", default="", help="that the steps run as; empty takes the project's default"
    )
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
    overrides = [*arguments.set, *several(arguments.sets)]
    settings = config.load(arguments.config, overrides)
    explora = settings.model.init_from_explora
    text = compiled(Target(arguments.target, arguments.image_cpu, arguments.image_gpu), settings, explora)
    parameters = run_parameters(settings, overrides)
    with tempfile.TemporaryDirectory() as folder:  # in build/ another submission's could take its place meanwhile
        package = Path(folder) / f"{file_stem(explora)}.yaml"
        write_bytes(package, text.encode())
        common = package, parameters, arguments.experiment, arguments.run
        if arguments.target == KUBEFLOW:
            if arguments.endpoint and not arguments.no_doctor:
                look_first(settings, arguments.endpoint)
            return to_kubeflow(*common, arguments.endpoint)
        vertex = arguments.project, arguments.region, arguments.pipeline_root, arguments.service_account
        print(to_vertex(*common, *vertex))
    return 0


if __name__ == "__main__":
    main()
