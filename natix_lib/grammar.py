r"""What names, quantities and addresses may look like: each grammar once, with its source.

A function gives its text back, or raises ValueError with the rule, "must ...": sections take them as validators, and
whoever else needs one puts the thing's name before it.

Where KFP takes less than Kubernetes, as with quantities, the grammar is KFP's: what it refuses, it refuses with a
traceback when the pipeline is compiled.
"""

import re
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator

CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # and halves of characters, which no file can hold
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/.*", re.DOTALL)  # two characters and more: C:/ is a disk

# Kubernetes API, resource.Quantity: a number and a suffix, at most three decimals of a CPU. KFP's `set_cpu_limit` and
# `set_memory_limit` take neither signs nor exponents, nor, of memory, fractions and the suffixes m and k.
CPU = re.compile(r"[0-9]{1,6}|[0-9]{0,6}\.[0-9]{1,3}|[0-9]{1,9}m")
MEMORY = re.compile(r"[0-9]{1,18}(Ki|Mi?|Gi?|Ti?|Pi?|Ei?)?")

# Kubernetes, "Object names and IDs": DNS subdomains of RFC 1123, and "Labels and selectors".
DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
SUBDOMAIN = re.compile(rf"(?=.{{1,253}}$){DNS_LABEL}(?:\.{DNS_LABEL})*")
LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

# Kubernetes API, VolumeMount: a path without a colon; ours hides nothing that a container of KFP's has.
MOUNT = re.compile(r"(?:/[^/:\x00-\x1f]+)+/?")
TAKEN = {"/tmp", "/dev", "/dev/shm", "/etc", "/proc", "/sys", "/usr", "/kfp-launcher", "/var", "/home", "/opt", "/bin"}
ENDPOINT = re.compile(r"https?://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?/?")

# Google Secret Manager: an id, or the resource name of a secret or of a version of it.
SECRET = re.compile(r"(projects/[a-z0-9.:-]+/secrets/)?[A-Za-z0-9_-]{1,255}(?(1)(/versions/[A-Za-z0-9_-]+)?)")

# Google Cloud Storage, "Bucket naming": 3 to 63 characters, or 222 with dots, whose parts have at most 63.
BUCKET_PART = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
BUCKET = re.compile(rf"(?=.{{3,222}}$)(?=[a-z0-9].*[a-z0-9]$){BUCKET_PART}(?:\.{BUCKET_PART})*")
OBJECT_BYTES = 1024  # "Object naming", in UTF-8

# Amazon S3, "Bucket naming rules", which the stores that speak its protocol share.
S3_BUCKET = re.compile(r"(?=.{3,63}$)(?!xn--)[a-z0-9](?:[a-z0-9-]|\.(?=[a-z0-9]))*[a-z0-9]")

# What the name of a bucket may be, a line a scheme; natix_lib/storage/SCHEME.py reads and writes there.
SCHEMES = {"gs": BUCKET, "s3": S3_BUCKET}
PREFIXES = " or ".join(f"{scheme}://" for scheme in SCHEMES)  # for messages

# huggingface_hub.utils.validate_repo_id, with the owner that every backbone has.
HUB_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
HUB_ID = re.compile(rf"(?=[^/]+/.{{1,96}}$)(?!.*(?:--|\.\.))(?!.*\.git$){HUB_PART}/{HUB_PART}")
PATCHES = "patches"  # a backbone that is learnt from TRAIN; a folder of that name is ./patches

# distribution/reference: [host[:port]/]path[:tag][@digest], the path in lower case.
IMAGE_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
IMAGE_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?/)?"
IMAGE = re.compile(
    rf"(?=.{{1,512}}$){IMAGE_HOST}{IMAGE_PART}(?:/{IMAGE_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)


def cpu(text: str) -> str:
    """CPUs of a container, such as 4, 0.5 or 500m."""
    if not CPU.fullmatch(text) or not text.strip("0.m"):
        raise ValueError("must be CPUs above 0, such as 4, 0.5 or 500m")
    return text


def memory(text: str) -> str:
    """Bytes of memory, such as 16Gi."""
    match = MEMORY.fullmatch(text)
    if not match or not text.removesuffix(match[1] or "").strip("0"):
        raise ValueError("must be whole bytes above 0, with Ki, Mi, Gi, Ti, M, G or T behind them, such as 16Gi")
    return text


def object_name(text: str) -> str:
    """Name of a Kubernetes object."""
    if not SUBDOMAIN.fullmatch(text):
        raise ValueError("must be a Kubernetes name, up to 253 lower-case letters, digits, - and .")
    return text


def optional_name(text: str) -> str:
    """Name of a Kubernetes object; "" for none."""
    return object_name(text) if text else text


def mount_path(text: str) -> str:
    """Folder of a container that a volume is mounted at: absolute, and none that the container needs."""
    if not MOUNT.fullmatch(text) or text.rstrip("/") in TAKEN or {".", ".."}.intersection(text.split("/")):
        raise ValueError("must be an absolute path of a folder of its own, such as /data, without : and ..")
    return text


def address(text: str) -> str:
    """Address of a service, http:// or https:// with host and port; "" for none."""
    if text and not ENDPOINT.fullmatch(text):
        raise ValueError("must be http://host[:port] or https://host[:port]")
    return text


def label_key(text: str) -> str:
    """Key of a Kubernetes label or taint: a name, or `prefix/name`."""
    prefix, slash, name = text.rpartition("/")
    if not LABEL_NAME.fullmatch(name) or (slash and not SUBDOMAIN.fullmatch(prefix)):
        raise ValueError("must be a Kubernetes label key, [domain/]name with up to 63 letters, digits, -, _ and .")
    return text


def taint_key(text: str) -> str:
    """Key of a toleration, a label's; "" is every taint's."""
    return label_key(text) if text else text


def label_value(text: str) -> str:
    """Value of a Kubernetes label or taint; may be empty."""
    if text and not LABEL_NAME.fullmatch(text):
        raise ValueError("must be a Kubernetes label value, up to 63 letters, digits, -, _ and .")
    return text


def secret_manager_name(text: str) -> str:
    """Name of a secret in Google's Secret Manager."""
    if not SECRET.fullmatch(text):
        raise ValueError("must be an id in Secret Manager or projects/PROJECT/secrets/ID[/versions/VERSION]")
    return text


def secret_name(text: str) -> str:
    """Name that a secret can have on one of the targets; "" for none."""
    if text and not SUBDOMAIN.fullmatch(text) and not SECRET.fullmatch(text):
        raise ValueError(
            "must be the name of a Kubernetes secret, an id in Secret Manager or "
            "projects/PROJECT/secrets/ID[/versions/VERSION]"
        )
    return text


def image_name(text: str) -> str:
    """Reference of a container image."""
    if not IMAGE.fullmatch(text):
        raise ValueError("must be an image, [host[:port]/]path[:tag][@sha256:digest] with the path in lower case")
    return text


def is_hub_id(text: str) -> bool:
    """Whether a text is `owner/name` as the Hugging Face hub takes it."""
    return HUB_ID.fullmatch(text) is not None


def scheme(text: str) -> str | None:
    """Scheme of a bucket's address; None for everything else."""
    return next((name for name in SCHEMES if text.startswith(f"{name}://")), None)


def bucket_and_name(uri: str, schemes: Collection[str] = SCHEMES) -> tuple[str, str]:
    """Bucket and object name, or prefix, of a bucket's address.

    Args:
        uri: The bucket's address.
        schemes: Which of `SCHEMES` the address may have.

    Raises:
        ValueError: With the rule that it breaks.
    """
    bucket, _, name = uri.partition("://")[2].partition("/")
    uri_scheme = scheme(uri)
    if uri_scheme is None or uri_scheme not in schemes or not bucket or not name.strip("/"):
        raise ValueError(f"must read {_shapes([uri_scheme] if uri_scheme and uri_scheme in schemes else schemes)}")
    if not SCHEMES[uri_scheme].fullmatch(bucket) or _is_ip(bucket):
        raise ValueError(
            "must name a bucket, 3 to 63 lower-case letters, digits, -, . and, of gs://, _ (no IP address)"
        )
    if {"", ".", ".."}.intersection(name.removesuffix("/").split("/")):
        raise ValueError("must name an object without empty parts, . and .. between its slashes")
    if len(name.encode("utf-8", "surrogatepass")) > OBJECT_BYTES or CONTROL.search(name):
        raise ValueError(f"must name an object with at most {OBJECT_BYTES} bytes, none of them a control character")
    return bucket, name


def local_path(text: str) -> str:
    """A local path: no address, no NUL, and `~` written out."""
    if ADDRESS.fullmatch(text):
        raise ValueError("must be a local path, not an address: copy it here first")
    if text.startswith("~"):
        raise ValueError("must be written out: ~ is not expanded here")
    if "\0" in text:
        raise ValueError("must not contain a NUL")
    return text


def place(text: str) -> str:
    """A local path or a bucket's address."""
    if scheme(text):
        bucket_and_name(text)
        return text
    if ADDRESS.fullmatch(text):
        raise ValueError(f"must be a local path or {_shapes(SCHEMES)}: no other addresses are read")
    return local_path(text)


def backbone_source(text: str) -> str:
    """A hub id, a local folder, a bucket's address or `patches`."""
    if match := re.match(r"(?:https?://)?(?:huggingface\.co|hf\.co)/(\w[\w.-]*/\w[\w.-]*)", text):
        raise ValueError(f"must be the hub's id alone: {match[1]}")
    if ADDRESS.fullmatch(text):
        return place(text)
    if not text.startswith((".", "/", "~")) and not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", text):
        raise ValueError(
            f"must be a hub id (owner/name), {PATCHES}, {_shapes(SCHEMES)} or a folder: write other names as ./NAME"
        )
    return local_path(text)


def _shapes(schemes: Iterable[str]) -> str:
    return " or ".join(f"{name}://bucket/path" for name in schemes)


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


Cpu = Annotated[str, AfterValidator(cpu)]
Memory = Annotated[str, AfterValidator(memory)]
ObjectName = Annotated[str, AfterValidator(object_name)]
OptionalName = Annotated[str, AfterValidator(optional_name)]
MountPath = Annotated[str, AfterValidator(mount_path)]
Address = Annotated[str, AfterValidator(address)]
LabelKey = Annotated[str, AfterValidator(label_key)]
TaintKey = Annotated[str, AfterValidator(taint_key)]
LabelValue = Annotated[str, AfterValidator(label_value)]
SecretName = Annotated[str, AfterValidator(secret_name)]
ImageName = Annotated[str, AfterValidator(image_name)]
LocalPath = Annotated[str, AfterValidator(local_path)]
Place = Annotated[str, AfterValidator(place)]
BackboneSource = Annotated[str, AfterValidator(backbone_source)]
