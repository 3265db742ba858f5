"""KFP on a cluster, as far as a compiled file decides it: what runs, what its cache answers, what tasks are given.

Read from kubeflow/pipelines at 2.17: the API server refuses a parameter that it does not know or of another type, and
puts what is sent in the place of a default, a STRUCT whole (apiserver/template/v2_template.go). The driver resolves a
constant that is a placeholder of the run (v2/driver/resolve.go), and where a task may be cached looks for a result of
the same pipeline name (v2/driver/cache.go) and key: image, command, parameters, names of artifacts, and outputs
(v2/cacheutils/cache.go). On the way all numbers become doubles. The task check is really run; each other one gives
artifacts of new names.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import yaml

from natix_components.check import check

TYPES: dict[str, Callable[[Any], bool]] = {
    "STRING": lambda value: isinstance(value, str),
    "STRUCT": lambda value: isinstance(value, dict),
    "NUMBER_DOUBLE": lambda value: isinstance(value, float),
    "NUMBER_INTEGER": lambda value: isinstance(value, float),
}


@dataclass
class Run:
    """What one run did.

    Attributes:
        ran: The tasks that were run.
        given: The parameters of each task, cached or not.
    """

    ran: set[str] = field(default_factory=set)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Cluster:
    """The cache of a cluster, and how many runs it has had."""

    cache: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    runs: int = 0

    def run(self, text: str, enable_caching: bool = False, **sent: Any) -> Run:
        """Run a compiled pipeline; `enable_caching` as the client's of that name, which sets it for every task."""
        spec = _read(text)
        parameters = _checked(spec["root"]["inputDefinitions"]["parameters"], _doubles(sent))
        self.runs += 1
        done: dict[str, dict[str, Any]] = {}
        run = Run()
        tasks = dict(spec["root"]["dag"]["tasks"])
        while tasks:
            name = next(name for name, task in tasks.items() if done.keys() >= set(task.get("dependentTasks", ())))
            task = tasks.pop(name)
            component = spec["components"][task["componentRef"]["name"]]
            container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
            run.given[name] = {
                key: self._resolved(source, parameters, done) for key, source in task["inputs"]["parameters"].items()
            }
            artifacts = {
                key: done[source["taskOutputArtifact"]["producerTask"]][
                    source["taskOutputArtifact"]["outputArtifactKey"]
                ]
                for key, source in task["inputs"].get("artifacts", {}).items()
            }
            outputs = component.get("outputDefinitions", {})
            key = (
                spec["pipelineInfo"]["name"],
                json.dumps(
                    [container["image"], container["command"], container["args"], run.given[name], artifacts, outputs],
                    sort_keys=True,
                ),
            )
            cached = task["cachingOptions"].get("enableCache") or enable_caching
            if cached and key in self.cache:
                done[name] = self.cache[key]
                continue
            run.ran.add(name)
            done[name] = (
                _check(run.given[name])
                if name == "check"
                else {artifact: f"{self.runs}/{name}/{artifact}" for artifact in outputs["artifacts"]}
            )
            if cached:
                self.cache[key] = done[name]
        return run

    def _resolved(self, source: dict[str, Any], parameters: dict[str, Any], done: dict[str, dict[str, Any]]) -> Any:
        if "componentInputParameter" in source:
            return parameters[source["componentInputParameter"]]
        if "taskOutputParameter" in source:
            output = source["taskOutputParameter"]
            return done[output["producerTask"]][output["outputParameterKey"]]
        constant = source["runtimeValue"]["constant"]
        return f"run {self.runs}" if constant == "{{$.pipeline_job_uuid}}" else _doubles(constant)


@cache
def _read(text: str) -> dict[str, Any]:
    """The specification of a compiled file, read once: nothing writes into it."""
    specification: dict[str, Any] = next(yaml.safe_load_all(text))
    return specification


def _check(given: dict[str, Any]) -> dict[str, Any]:
    outputs = [_doubles(output) for output in check.python_func(**given)]
    return dict(zip(check.component_spec.outputs, outputs, strict=True))


def _checked(declared: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    if unknown := sent.keys() - declared.keys():
        raise ValueError(f"parameter(s) provided are not required as inputs: {unknown}")
    for name, value in sent.items():
        if not TYPES[declared[name]["parameterType"]](value):
            raise ValueError(f"input parameter {name} requires type {declared[name]['parameterType']}")
    return {name: sent.get(name, _doubles(parameter["defaultValue"])) for name, parameter in declared.items()}


def _doubles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _doubles(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_doubles(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
