"""What a policy promises of the images that it accepts, in one sentence: the same wherever a person reads of it."""

from natix_lib.decisions.policy import SWEEP_METHOD
from natix_lib.files import JsonDict


def is_certified(policy: JsonDict) -> bool:
    """Whether the content of a thresholds.json or scrcparams.json carries a guarantee that holds."""
    return bool((policy.get("guarantee") or {}).get("certified"))


def promise(policy: JsonDict) -> str:
    """The sentence, without its full stop; it begins with `certified` or `uncertified`.

    Args:
        policy: Content of a thresholds.json or scrcparams.json.
    """
    guarantee = policy.get("guarantee") or {}
    if is_certified(policy):
        return (
            f"certified: of the accepted at most {guarantee['alpha']:.3g} are wrong, "
            f"with a confidence of {1 - guarantee['delta']:.3g}"
        )
    if policy["method"] == SWEEP_METHOD:
        return "uncertified: a threshold of sweep promises no error rate"
    return f"uncertified: the accept rule carries no guarantee: {guarantee.get('reason') or 'its file has none'}"
