"""`natix doctor`: what is here and what can be reached, one line a thing.

With `--cluster` it asks something else, whether the cluster of the kubeconfig holds a run: the table of
`natix_lib/survey/checkup.py`, which `make submit` looks at before it sends anything.

It answers questions and judges nothing: what is missing is a line that says so, and the exit code is 0. Addresses are
asked at the same time, each for at most SECONDS, by threads that the process does not wait for at its end. Whether
someone may read a bucket is asked by listing it, where its client is here; else whether the service answers.
Nothing is installed for it: the packages of the base install are enough, and torch is imported only where it is here.
"""

import os
import platform
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Optional
from urllib.parse import urlsplit

import typer

from natix_lib.cli.extras import CLIENTS, EXTRAS, is_here, missing, require
from natix_lib.cli.options import CachePlace, Overrides, path_of
from natix_lib.cpus import cpu_threads
from natix_lib.errors import ConfigError, NatixError

SECONDS = 5.0  # for all addresses together
HUB = "https://huggingface.co"
PACKAGES = ("numpy", "scipy", "pillow", "onnxruntime", "pydantic", "torch", "transformers", "kfp")
BUCKETS = " or ".join(f"{scheme}://" for scheme in CLIENTS)


def doctor(
    bucket: Annotated[
        str, typer.Option(metavar="ADDRESS", help=f"A {BUCKETS} address to ask for.", show_default=False)
    ] = "",
    endpoint: Annotated[
        str,
        typer.Option(metavar="ADDRESS", envvar="KFP_ENDPOINT", help="A KFP endpoint to ask for.", show_default=False),
    ] = "",
    cache: CachePlace = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Look whether a cluster holds a run, instead.")] = False,
    config: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option("--config", "-c", metavar="FILE", help="The run's config, with --cluster.", parser=path_of),
    ] = None,
    overrides: Overrides = None,
    namespace: Annotated[
        str,
        typer.Option(
            metavar="NAME", envvar="KFP_NAMESPACE", help="Where the steps run; default kubeflow.", show_default=False
        ),
    ] = "",
) -> None:
    """Say what is here: versions, devices, extras, cache, and whether hub, bucket and cluster can be reached."""
    if cluster:
        _look_at_cluster(config, overrides or [], namespace, endpoint)
        return
    from natix_lib import __version__

    asked = _Asked({"hub": _hub, "bucket": lambda: _bucket(bucket), "cluster": _cluster, "kfp": lambda: _kfp(endpoint)})
    _line("natix", f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    _line("packages", ", ".join(f"{name} {_version(name)}" for name in PACKAGES if _version(name)))
    _line("processors", _processors())
    _line("gpu", _gpu())
    for extra, modules in EXTRAS.items():
        lacking = [module for module in modules if not is_here(module)]
        _line(extra, f"no, lacks {', '.join(lacking)}: pip install 'natix[{extra}]'" if lacking else "yes")
    _line("cache", _cache(cache))
    _line("disk", _disk(cache))
    for name, answer in asked.answers():
        _line(name, answer)


def _look_at_cluster(path: Path | None, overrides: list[str], namespace: str, endpoint: str) -> None:
    from natix_lib import config
    from natix_lib.survey.checkup import checkup
    from natix_lib.survey.verdicts import table

    require("kfp.kubernetes")  # which brings the client of kubernetes as well
    if overrides and not path:
        raise ConfigError("--set lays values over a config: name it with --config")
    settings = config.load(path, overrides) if path else None
    for line in table(checkup(settings, namespace, endpoint)):
        typer.echo(line)


class _Asked:
    """Questions to other machines, put at once; an answer that does not come in time is one too."""

    def __init__(self, questions: dict[str, Callable[[], str]]) -> None:
        self._given: dict[str, str] = {}
        self._questions = questions
        self._end = time.monotonic() + SECONDS
        self._threads = [threading.Thread(target=self._ask, args=item, daemon=True) for item in questions.items()]
        for thread in self._threads:
            thread.start()

    def answers(self) -> list[tuple[str, str]]:
        for thread in self._threads:
            thread.join(max(0.0, self._end - time.monotonic()))
        late = f"no: no answer in {SECONDS:g} s"
        return [(name, self._given.get(name, late)) for name in self._questions]

    def _ask(self, name: str, question: Callable[[], str]) -> None:
        try:
            self._given[name] = question()
        except Exception as error:  # whatever a client raises means that nothing was reached
            self._given[name] = f"no: {str(error) or type(error).__name__}"


def _line(name: str, text: str) -> None:
    typer.echo(f"{name:<11} {NatixError(text)}")  # one line without secrets, as errors are


def _version(package: str) -> str:
    from importlib import metadata  # here, because help needs none of it

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _processors() -> str:
    try:
        return str(cpu_threads())
    except NatixError as error:
        return f"no: {error}"


def _gpu() -> str:
    from natix_lib.survey.machine import SMI, gpus_of_driver, gpus_of_torch

    seen = {"torch": gpus_of_torch()} if is_here("torch") else {}
    seen[SMI[0]] = gpus_of_driver()
    return "; ".join(f"{who} sees {', '.join(map(str, gpus)) or 'none'}" for who, gpus in seen.items())


def _cache(folder: Path | None) -> str:
    from natix_lib import run_cache
    from natix_lib.cli.cache import summary

    try:
        place = run_cache.place(folder)
        kept = run_cache.kept(place)
    except NatixError as error:
        return f"no: {error}"
    return f"{place}, {summary(kept)}" if place.is_dir() else f"{place}, not there yet"


def _disk(folder: Path | None) -> str:
    from natix_lib import run_cache

    try:
        place = run_cache.place(folder).absolute()
        there = next(path for path in (place, *place.parents) if path.exists())
        return f"{run_cache.size_text(shutil.disk_usage(there).free)} free at {there}"
    except (NatixError, OSError) as error:
        return f"no: {error}"


def _hub() -> str:
    address = os.environ.get("HF_ENDPOINT") or HUB
    token = "a token is set" if os.environ.get("HF_TOKEN") else "no HF_TOKEN: gated backbones need one"
    return f"{_answers(address)}; {token}"


def _bucket(address: str) -> str:
    if not address:
        return "not asked: name one with --bucket gs://bucket/prefix"
    from natix_lib import grammar, storage

    if grammar.scheme(address) is None:
        raise ConfigError(f"{address} must be an address like gs://bucket/prefix")
    client = CLIENTS[str(grammar.scheme(address))]
    if not is_here(client):
        return f"not asked: {missing(client)}"
    return f"yes, {address} can be listed: {len(storage.file_names(address))} objects"


def _cluster() -> str:
    import yaml

    from natix_lib.survey.cluster import kubeconfig

    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ.get("KUBERNETES_SERVICE_PORT") or 443)
        return _connects(host, port, "this pod's cluster")
    paths = [Path(name) for name in kubeconfig().split(os.pathsep) if Path(name).is_file()]
    if not paths:
        return "not asked: no kubeconfig in KUBECONFIG or in a home folder"
    values = yaml.safe_load(paths[0].read_text(encoding="utf-8"))
    current = values["current-context"]
    context = next(row["context"] for row in values["contexts"] if row["name"] == current)
    server = next(row["cluster"]["server"] for row in values["clusters"] if row["name"] == context["cluster"])
    parts = urlsplit(server)
    return _connects(str(parts.hostname), parts.port or (80 if parts.scheme == "http" else 443), f"context {current}")


def _kfp(endpoint: str) -> str:
    if not endpoint:
        return "not asked: name one with --endpoint or KFP_ENDPOINT"
    return _answers(endpoint if "://" in endpoint else f"http://{endpoint}")


def _connects(host: str, port: int, what: str) -> str:
    with socket.create_connection((host, port), timeout=SECONDS):
        return f"yes, {what} answers at {host}:{port}"


def _answers(address: str) -> str:
    """Whether anything answers there: an answer that refuses is one."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    if urlsplit(address).scheme not in ("http", "https"):
        raise ConfigError(f"{address} must be an http or https address")
    try:
        with urlopen(Request(address, method="HEAD"), timeout=SECONDS):
            return f"yes, {address}"
    except HTTPError as error:
        with error:
            return f"yes, {address} (answers {error.code})"
