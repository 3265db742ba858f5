"""What a cluster says of itself, as one snapshot: the thin reader below the judgements of `fitness.py`.

Every question is one GET, asked with the rights of who asks, by the kubeconfig or as a pod; what is not there is None,
what may not be read is `Unseen` with the reason. Secrets are asked for their metadata alone, so that none of them
comes here. Whether the account of the steps may do what they do is a SelfSubjectAccessReview asked as that account, so
it takes the right to impersonate it; who has none is told so. KFP is asked at its endpoint, or through the API server.

The first question decides: an API server that does not answer it is asked nothing more. The others are asked at once,
because a kubelet that does not answer takes SECONDS and who submits waits; LOOK_SECONDS bound them together.
"""

import json
import os
import socket
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from natix_lib.config.hardware import Hardware
from natix_lib.files import JsonDict

SECONDS = 5.0  # for one answer
LOOK_SECONDS = 15.0  # for all of them
MOST_NODES = 20  # whose free disk is asked for
THREADS = MOST_NODES
KFP_NAMESPACE = "kubeflow"  # where KFP is, also when the steps are in another
HEALTH = "apis/v2beta1/healthz"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"


@dataclass(frozen=True)
class Right:
    """Something that an account may do.

    Attributes:
        verb: As Kubernetes names it.
        resource: In the plural.
        group: Of the API; "" is the core's.
        subresource: Of the resource; "" for itself.
        name: The one object; "" for any.
        everywhere: In the whole cluster, else in the account's namespace.
        needed: Whether a run ends without it; else its step goes on, with a warning at most.
    """

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""
    name: str = ""
    everywhere: bool = False
    needed: bool = False

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{self.subresource and '/' + self.subresource}"


OF_STEPS = (  # what Argo's and KFP's own containers in a step's pod do
    Right("create", "workflowtaskresults", "argoproj.io"),
    Right("get", "configmaps"),
)
CLUSTER_RUNTIMES = Right("get", "clustertrainingruntimes", "trainer.kubeflow.org", everywhere=True, needed=True)
OF_LAUNCHERS = (  # what manifests/components/multi-node grants
    *(Right(verb, "trainjobs", "trainer.kubeflow.org", needed=True) for verb in ("create", "get", "delete")),
    Right("patch", "trainjobs", "trainer.kubeflow.org"),
    Right("get", "trainingruntimes", "trainer.kubeflow.org", needed=True),  # asked first, and only its absence passed
    CLUSTER_RUNTIMES,
    Right("get", "pods"),
    Right("list", "pods"),
    Right("get", "pods", subresource="log"),
    Right("get", "configmaps", name="kubeflow-trainer-public", everywhere=True),
)


@dataclass(frozen=True)
class Unseen:
    """Why a question has no answer."""

    reason: str


Answer = JsonDict | None | Unseen


@dataclass(frozen=True)
class Seen:
    """What was seen of a cluster.

    Attributes:
        namespace: Where the steps run.
        answers: The object that each question of `questions` asks for; None for one that is not there. Beside them
            "kfp", "disk NODE" and "may RIGHT".
    """

    namespace: str
    answers: Mapping[str, Answer]

    def __getitem__(self, question: str) -> Answer:
        return self.answers.get(question, Unseen("was not asked"))

    def items(self, question: str) -> list[JsonDict] | Unseen:
        """The objects of a list."""
        answer = self[question]
        if isinstance(answer, Unseen):
            return answer
        return [each for each in (answer or {}).get("items") or [] if isinstance(each, dict)]


def questions(namespace: str, hardware: Hardware) -> dict[str, str]:
    """Paths of the API server by the name of what they give."""
    here, kfp = f"/api/v1/namespaces/{namespace}", f"/api/v1/namespaces/{KFP_NAMESPACE}"
    asked = {
        "nodes": "/api/v1/nodes",
        "namespace": f"/api/v1/namespaces/{namespace}",
        "quotas": f"{here}/resourcequotas",
        "limits": f"{here}/limitranges",
        "account": f"{here}/serviceaccounts/{hardware.service_account}",
        "launcher": f"{here}/configmaps/kfp-launcher",
        "workflows": f"{kfp}/configmaps/workflow-controller-configmap",
        "server": f"/apis/apps/v1/namespaces/{KFP_NAMESPACE}/deployments/ml-pipeline",
        "autoscaler": "/api/v1/namespaces/kube-system/configmaps/cluster-autoscaler-status",
        "karpenter": "/apis/karpenter.sh",
        "argo": "/apis/argoproj.io",
    }
    for secret in {hardware.hf_token_secret, hardware.store_secret, *hardware.pull_secrets} - {""}:
        asked[f"secret {secret}"] = f"{here}/secrets/{secret}"
    for volume in hardware.volumes:
        asked[f"claim {volume.claim}"] = f"{here}/persistentvolumeclaims/{volume.claim}"
    if hardware.num_nodes > 1:
        asked["trainer"] = TRAINER
        asked["runtime"] = f"{TRAINER}/clustertrainingruntimes/{hardware.training_runtime}"
        asked["own runtime"] = f"{TRAINER}/namespaces/{namespace}/trainingruntimes/{hardware.training_runtime}"
    return asked


def look(namespace: str, hardware: Hardware, endpoint: str) -> Seen:
    """Ask the cluster of the kubeconfig, or of this pod.

    Args:
        namespace: Where the steps run.
        hardware: What the config says of the hardware.
        endpoint: Address of KFP's API; "" asks through the API server.
    """
    answers: dict[str, Answer] = {}
    end = time.monotonic() + LOOK_SECONDS
    asked: dict[str, Callable[[], Answer]] = {"kfp": partial(_health, endpoint)} if endpoint else {}
    try:
        get, may = _client(namespace, hardware.service_account)
        answers |= _at_once({"version": partial(get, "/version")}, end)
    except Exception as error:  # of many classes: a kubeconfig that is damaged, a login command that fails
        answers["version"] = Unseen(_line(error))
    if not isinstance(answers["version"], dict):
        return Seen(namespace, answers | _at_once(asked, end))
    through_server = f"/api/v1/namespaces/{KFP_NAMESPACE}/services/ml-pipeline:8888/proxy/{HEALTH}"
    paths = {"kfp": through_server, **questions(namespace, hardware)}
    rights = (*OF_STEPS, *(OF_LAUNCHERS if hardware.num_nodes > 1 else ()))
    asked = {
        **{name: partial(get, path) for name, path in paths.items()},
        **{f"may {right}": partial(may, right) for right in rights},
        **asked,
    }
    answers |= _at_once(asked, end)
    nodes = Seen(namespace, answers).items("nodes")
    names = [] if isinstance(nodes, Unseen) else [node["metadata"]["name"] for node in nodes if "metadata" in node]
    summary = "/api/v1/nodes/{}/proxy/stats/summary?only_cpu_and_memory=false"
    disks = {f"disk {name}": partial(get, summary.format(name)) for name in names[:MOST_NODES]}
    return Seen(namespace, answers | _at_once(disks, end))


def _at_once(asked: Mapping[str, Callable[[], Answer]], end: float) -> dict[str, Answer]:
    """The answers to all questions; one that has none at `end`, on the monotonic clock, is not waited for."""
    pool = ThreadPoolExecutor(THREADS)
    coming = {name: pool.submit(question) for name, question in asked.items()}
    wait(coming.values(), max(0.0, end - time.monotonic()))
    pool.shutdown(wait=False, cancel_futures=True)
    late = Unseen(f"no answer in {LOOK_SECONDS:g} s")
    return {
        name: late if answer.cancelled() or not answer.done() else answer.result() for name, answer in coming.items()
    }


def kubeconfig() -> str:
    """The kubeconfigs that KUBECONFIG names, which the client merges, else the one at home; "" where there is none.

    Raises:
        FileNotFoundError: If none of those that KUBECONFIG names is a file.
    """
    if named := os.environ.get("KUBECONFIG", ""):
        if not any(Path(name).is_file() for name in named.split(os.pathsep)):
            raise FileNotFoundError(f"KUBECONFIG names {named}, which is no file")
        return named
    try:
        path = Path.home() / ".kube" / "config"
    except RuntimeError:  # a user without a home
        return ""
    return str(path) if path.is_file() else ""


def _client(namespace: str, account: str) -> tuple[Callable[[str], Answer], Callable[[Right], Answer]]:
    """Ask for a path, and whether the account has a right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from kubernetes import client, config
    configuration = client.Configuration()
    configuration.retries = False
    configuration.connection_pool_maxsize = THREADS
    if path := kubeconfig():
        config.load_kube_config(path, client_configuration=configuration, persist_config=False)
    elif os.environ.get("KUBERNETES_SERVICE_HOST"):
        config.load_incluster_config(client_configuration=configuration)
    else:
        raise FileNotFoundError("no kubeconfig here: KUBECONFIG names one")
    api = client.ApiClient(configuration)

    def ask(path: str, method: str, body: JsonDict | None, headers: Mapping[str, str]) -> Answer:
        try:
            answer, _, _ = api.call_api(
                path, method, body=body, header_params={"Accept": "application/json", **headers},
                response_type="object", auth_settings=["BearerToken"], _request_timeout=(SECONDS, SECONDS),
            )  # fmt: skip
        except client.ApiException as error:
            said = f"{error.status} {error.reason}" if error.status else _line(error)  # 0: a certificate
            return None if error.status == 404 else Unseen(said)
        except Exception as error:  # urllib3's, when nothing answers
            return Unseen(_line(error))
        return answer if isinstance(answer, dict) else Unseen("the answer is no object")

    def get(path: str) -> Answer:
        headers = {"Accept": METADATA_ONLY} if "/secrets/" in path else {}
        return ask(path, "GET", None, headers)

    def may(right: Right) -> Answer:
        attributes = {"verb": right.verb, "resource": right.resource, "group": right.group}
        attributes |= {"subresource": right.subresource} if right.subresource else {}
        attributes |= {"name": right.name} if right.name else {}
        attributes |= {} if right.everywhere else {"namespace": namespace}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        as_account = {
            "Impersonate-User": f"system:serviceaccount:{namespace}:{account}",
            "Content-Type": "application/json",
        }
        return ask("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "POST", review, as_account)

    return get, may


def _health(endpoint: str) -> Answer:
    """What KFP's API says of itself; None where nothing answers."""
    from urllib.error import HTTPError
    from urllib.request import urlopen

    address = endpoint if "://" in endpoint else f"http://{endpoint}"
    if not address.startswith(("http://", "https://")):
        return None
    try:
        with urlopen(f"{address.rstrip('/')}/{HEALTH}", timeout=SECONDS) as answer:
            values: Any = json.loads(answer.read())
    except HTTPError as error:
        with error:
            return Unseen(f"{address} answers {error.code}")
    except ValueError:
        return Unseen(f"what answers at {address} is not KFP's API: a login page, perhaps")
    except OSError as error:
        reason = getattr(error, "reason", error)
        nobody = isinstance(reason, ConnectionRefusedError | socket.gaierror)
        return None if nobody else Unseen(f"{address} cannot be asked: {reason}")  # a certificate, a time limit
    return values if isinstance(values, dict) else Unseen(f"what answers at {address} is not KFP's API")


def _line(error: Exception) -> str:
    text = str(getattr(error, "reason", "") or error) or type(error).__name__
    return f"the API server cannot be asked: {' '.join(text.split())[:200]}"
