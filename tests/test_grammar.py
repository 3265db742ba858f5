"""Names, quantities and addresses, beside what Kubernetes, KFP and the hub's client say of the same texts."""

import re
from collections.abc import Callable

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from natix_lib import config, grammar
from natix_lib.config.hardware import Nodes
from natix_lib.errors import ConfigError

REQUIRED = {"data": {"data_root": "images"}, "model": {"backbone_id": "owner/vit"}, "export": {"policy": "sweep"}}
KFP_CPU = re.compile(r"([0-9]*[.])?[0-9]+m?$")  # kfp/dsl/pipeline_task.py
KFP_MEMORY = re.compile(r"^[0-9]+(E|Ei|P|Pi|T|Ti|G|Gi|M|Mi|K|Ki){0,1}$")
QUANTITY = re.compile(
    r"[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|[munkMGTPE]?|[eE][+-]?[0-9]+)"
)  # apimachinery


def refusal(**hardware: object) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(config.Config, {**REQUIRED, "hardware": hardware})
    return str(caught.value)


def accepts(check: Callable[[str], object], text: str) -> bool:
    try:
        return check(text) == text
    except ValueError as error:
        assert str(error).startswith("must ")
        return False


TEXTS = [
    "4",
    "0.5",
    ".5",
    "500m",
    "1.5m",
    "1e3",
    "4x",
    "16Gi",
    "16G",
    "16G B",
    "16gi",
    "16K",
    "16Ki",
    "16k",
    "1.5Gi",
    "-1",
    "+1",
    "0",
    "0m",
    "0Gi",
    "",
    " 4",
    "4\n",
    "٣",
    "4.",
    "1e400",
    "9" * 30,
    "1E",
    "1Ei",
    "1u",
]


@pytest.mark.parametrize("text", TEXTS)
def test_quantities_that_pass_are_above_zero_and_kubernetes_and_kfp_take_them(text: str) -> None:
    for check, kfp in ((grammar.cpu, KFP_CPU), (grammar.memory, KFP_MEMORY)):
        if accepts(check, text):
            assert QUANTITY.fullmatch(text) and kfp.fullmatch(text) and float(re.findall(r"^[0-9.]+", text)[0]) > 0


def test_the_usual_quantities_pass() -> None:
    assert all(accepts(grammar.cpu, text) for text in ("4", "0.5", ".5", "500m"))
    assert all(accepts(grammar.memory, text) for text in ("16Gi", "16G", "512Mi", "1000000", "1Ti"))


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            grammar.object_name,
            ["a", "hf-token", "a.b-c.9", "a" * 63],
            ["", "A", "-a", "a-", "a..b", "a_b", "a/b", "é", "a" * 64, "a\n"],
        ),
        (
            grammar.label_key,
            ["pool", "cloud.google.com/gke-accelerator", "A_b.c"],
            ["", "/a", "a/", "a/b/c", "A.b/c", "a b", "x" * 64],
        ),
        (grammar.label_value, ["", "nvidia-l4", "A_b.9"], ["-a", "a-", "a b", "a/b", "x" * 64, "a\n"]),
        (
            grammar.secret_name,
            ["", "hf-token", "HF_TOKEN", "a.b", "projects/p/secrets/s/versions/3"],
            ["a/b", "a b", "é", "projects//secrets/s"],
        ),
        (
            grammar.image_name,
            ["natix-cpu:latest", "registry/cpu", "localhost:5000/a/b_c:v1", "Eu.gcr.io/p/r@sha256:" + "a" * 64, "a__b"],
            ["", "A", "a b", "a:", "a@sha256:12", "a//b", "https://a/b", "-a", "a\n"],
        ),
        (
            grammar.place,
            ["images", "/a b/ü", "gs://bucket/x", "gs://bucket/x/", "gs://my.bucket.org/a b", "C:/x", ""],
            [
                "gs://",
                "gs:///x",
                "gs://bucket",
                "gs://b/x",
                "gs://bucket//x",
                "gs://bucket/a/../b",
                "gs://bucket/./b",
                "GS://bucket/x",
                "gs:/bucket/x",
                "ftp://bucket/x",
                "http://h/x",
                "gs://Bucket/x",
                "gs://10.0.0.1/x",
                "gs://-bucket/x",
                "gs://a..b/x",
                "gs://" + "b" * 64 + "/x",
                "gs://bucket/" + "x" * 1025,
                "gs://bucket/a\nb",
                "~/x",
                "a\0b",
            ],
        ),
        (
            grammar.backbone_source,
            ["owner/vit", "runs/a/b", "./my models", "/a b", "gs://bucket/x", "vit", "../x"],
            ["https://huggingface.co/owner/vit", "hf.co/owner/vit", "owner/a b", "ftp://a/b", "~/vit", "a:b"],
        ),
    ],
)
def test_grammars_take_the_good_and_refuse_the_bad(
    check: Callable[[str], object], good: list[str], bad: list[str]
) -> None:
    assert [text for text in good if not accepts(check, text)] == []
    assert [text for text in bad if accepts(check, text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "a/b",
        "a",
        "a/b/c",
        "a..b/c",
        "a--b/c",
        "a/b.git",
        "-a/b",
        "a/b-",
        "a b/c",
        "A_1/b.c",
        "a/" + "b" * 95,
        "é/b",
        "",
    ],
)
def test_a_hub_id_is_one_for_the_hubs_client_too(text: str) -> None:
    try:
        validate_repo_id(text)
        valid = text.count("/") == 1 and text.isascii()
    except HFValidationError:
        valid = False
    assert grammar.is_hub_id(text) == valid


def test_the_config_says_which_key_breaks_which_rule() -> None:
    assert refusal(cpu="4x") == "config: hardware.cpu must be CPUs above 0, such as 4, 0.5 or 500m, got '4x'"
    assert "hardware.memory must be whole bytes above 0" in refusal(memory="16G B")
    assert "hardware.node_selector.a b must be a Kubernetes label key" in refusal(node_selector={"a b": "c"})
    assert "hardware.node_selector.a must be a Kubernetes label value" in refusal(node_selector={"a": "b c"})
    assert "hardware.service_account must be a Kubernetes name" in refusal(service_account="A")
    assert "hardware.hf_token_secret must be the name of" in refusal(hf_token_secret="a/b")
    assert "hardware.shared_root must read gs://bucket/path" in refusal(shared_root="gs:///x")
    assert "hardware.retries: input should be less than or equal to 10" in refusal(retries=100_000)
    assert refusal(node_selector={"disk": 1}).endswith("input should be a valid string, got 1 (put it in quotes)")


@pytest.mark.parametrize(
    ("toleration", "message"),
    [
        ({"key": "a", "value": "b"}, "with the value b must have operator: Equal"),
        ({"operator": "Equal", "value": "b"}, "with operator: Equal must have a key"),
        ({"key": "a b"}, "hardware.tolerations.0.key must be a Kubernetes label key"),
        ({"key": "a", "operator": "Equal", "value": "b c"}, "hardware.tolerations.0.value must be"),
        ({"kee": "a"}, "hardware.tolerations.0.kee is not a known key, did you mean key?"),
        ({"key": "a", "effect": "No"}, "hardware.tolerations.0.effect: input should be"),
    ],
)
def test_tolerations_that_kubernetes_refuses_are_refused(toleration: dict[str, str], message: str) -> None:
    assert message in refusal(tolerations=[toleration])


def test_the_nodes_of_a_trainjob_are_checked_too() -> None:
    nodes = {
        "num_nodes": 2,
        "image": "A b",
        "cpu": "1",
        "memory": "1Gi",
        "shared_memory": "1Gi",
        "node_selector": {},
        "tolerations": [],
        "timeout_hours": 1,
        "shared_root": "gs://bucket/x",
        "runtime": "r",
        "service_account": "s",
    }
    with pytest.raises(ConfigError, match="image must be an image"):
        config.parse(Nodes, nodes)
