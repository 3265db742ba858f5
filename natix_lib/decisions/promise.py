"""What a policy promises of the images that it accepts, in one sentence: the same wherever a person reads of it."""

from collections.abc import Iterator

from natix_lib.decisions.joint import FALSE_ALARMS, MISSES, OF_SLICE, OVERALL
from natix_lib.decisions.policy import SWEEP_METHOD
from natix_lib.files import JsonDict


def is_certified(policy: JsonDict) -> bool:
    """Whether the content of a thresholds.json or scrcparams.json carries a guarantee that holds, or all of several."""
    guarantee = policy.get("guarantee") or {}
    return bool(guarantee.get("certified")) and all(each["certified"] for each in guarantee.get("promises") or ())


def promise(policy: JsonDict) -> str:
    """The sentence, without its full stop; it begins with `certified` or `uncertified`.

    Args:
        policy: Content of a thresholds.json or scrcparams.json.
    """
    guarantee = policy.get("guarantee") or {}
    positive = policy.get("positive_classes") or []
    whole = [{**guarantee, "kind": OVERALL, "of_class": None}] if guarantee else []
    promises = guarantee.get("promises") or whole
    holding = "; ".join(clause(each, positive) for each in promises if each["certified"])
    if is_certified(policy):
        return f"certified: {holding}, with a confidence of {1 - guarantee['delta']:.3g}{at_prior(policy)}"
    if policy["method"] == SWEEP_METHOD:
        return "uncertified: a threshold of sweep promises no error rate"
    if len(promises) > 1:
        failing = "; ".join(_failing([each for each in promises if not each["certified"]], positive))
        confidence = f"with a confidence of {1 - guarantee['delta']:.3g}{at_prior(policy)}"
        rest = f"; {holding}, {confidence}" if holding else ""
        return f"uncertified: {failing}{rest}"
    return f"uncertified: the accept rule carries no guarantee: {guarantee.get('reason') or 'its file has none'}"


def _failing(failed: list[JsonDict], positive_classes: list[str]) -> Iterator[str]:
    """What is not promised and why; of several slices or classes the first says it and the others are named."""
    for kind in dict.fromkeys(each["kind"] for each in failed):
        first, *others = (each for each in failed if each["kind"] == kind)
        nor = f", nor of {', '.join(map(_name, others))} (each reason stands in scrcparams.json)" if others else ""
        yield f"it is not promised that {clause(first, positive_classes)}: {first['reason']}{nor}"


def _name(promised: JsonDict) -> str:
    """Of a class or a slice."""
    return "{tag}={value}".format_map(promised["of_slice"]) if promised["kind"] == OF_SLICE else promised["of_class"]


def at_prior(policy: JsonDict) -> str:
    """For which shares of the classes in use a promise holds, as the end of its sentence; "" where as in the data."""
    prior = policy.get("prior")
    if not prior:
        return ""
    shares = ", ".join(f"{share:.3g} {name}" for name, share in prior["shares"].items())
    return f", where images in use are {shares}"


def clause(promised: JsonDict, positive_classes: list[str]) -> str:
    """One promise of a policy's file in words."""
    share, positive = f"at most {promised['alpha']:.3g}", " or ".join(positive_classes)
    if promised["kind"] == MISSES:
        return f"of the images with {positive} {share} are accepted as something else"
    if promised["kind"] == FALSE_ALARMS:
        return f"of those accepted as {positive} {share} are something else"
    if promised["kind"] == OVERALL:
        return f"of the accepted {share} are wrong"
    if promised["kind"] == OF_SLICE:
        return f"of the accepted with {_name(promised)}, known to be so or not, {share} are wrong"
    return f"of those accepted as {promised['of_class']} {share} are wrong"
