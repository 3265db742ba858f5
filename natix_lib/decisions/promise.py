"""What a policy promises of the images that it accepts, in one sentence: the same wherever a person reads of it."""

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
        return f"certified: {holding}, with a confidence of {1 - guarantee['delta']:.3g}"
    if policy["method"] == SWEEP_METHOD:
        return "uncertified: a threshold of sweep promises no error rate"
    if len(promises) > 1:
        failing = "; ".join(
            f"it is not promised that {clause(each, positive)}: {each['reason']}"
            for each in promises
            if not each["certified"]
        )
        rest = f"; {holding}, with a confidence of {1 - guarantee['delta']:.3g}" if holding else ""
        return f"uncertified: {failing}{rest}"
    return f"uncertified: the accept rule carries no guarantee: {guarantee.get('reason') or 'its file has none'}"


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
        name = "{tag}={value}".format_map(promised["of_slice"])
        return f"of the accepted with {name}, known to be so or not, {share} are wrong"
    return f"of those accepted as {promised['of_class']} {share} are wrong"
