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


def test_of_slices_that_fail_the_first_says_why_and_the_others_are_named() -> None:
    """Six slices with a reason each would be a page where a line is read."""
    asked = {"kind": "slice", "alpha": 0.1}
    slices = [
        {**asked, "of_slice": {"tag": "w", "value": value}, "certified": value == "sun", "reason": f"no {value}"}
        for value in ("fog", "rain", "sun", "snow")
    ]
    overall = {"kind": "overall", "alpha": 0.2, "certified": False, "reason": "too few"}
    guarantee = {**GUARANTEE, "promises": [overall, *slices]}
    assert promise({"method": "temperature_scaling", "guarantee": guarantee}) == (
        "uncertified: it is not promised that of the accepted at most 0.2 are wrong: too few; it is not promised that "
        "of the accepted with w=fog, known to be so or not, at most 0.1 are wrong: no fog, nor of w=rain, w=snow (each "
        "reason stands in scrcparams.json); of the accepted with w=sun, known to be so or not, at most 0.1 are wrong, "
        "with a confidence of 0.9"
    )
