import pytest

from natix_lib.decisions.promise import is_certified, promise

GUARANTEE = {"kind": "selective_risk", "certified": True, "alpha": 0.05, "delta": 0.1, "reason": ""}


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (
            {"method": "temperature_scaling", "guarantee": GUARANTEE},
            "certified: of the accepted at most 0.05 are wrong, with a confidence of 0.9",
        ),
        (
            {"method": "temperature_scaling", "guarantee": {**GUARANTEE, "certified": False, "reason": "too few"}},
            "uncertified: the accept rule carries no guarantee: too few",
        ),
        (
            {"method": "temperature_scaling", "guarantee": None},
            "uncertified: the accept rule carries no guarantee: its file has none",
        ),
        ({"method": "global_threshold"}, "uncertified: a threshold of sweep promises no error rate"),
    ],
)
def test_a_policy_says_what_it_promises_in_one_sentence(policy: dict, sentence: str) -> None:
    assert promise(policy) == sentence
    assert is_certified(policy) == sentence.startswith("certified")
