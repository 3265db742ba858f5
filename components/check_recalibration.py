"""The first task of a recalibration on a cluster: parameters are checked and sources looked at before all steps."""

from typing import Any, NamedTuple

from kfp import dsl

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def check_recalibration(
    data_root: str,
    bundle: str,
    alpha: float,
    delta: float,
    seed: str,
    data: dict[str, Any],
    split: dict[str, Any],
    scrc: dict[str, Any],
    export: dict[str, Any],
    evaluate: dict[str, Any],
    recalibrate: dict[str, Any],
    compiled: dict[str, Any],
    rest: dict[str, Any],
    run: str,
) -> NamedTuple(
    "Settings",
    [
        ("ingest", dict[str, Any]),
        ("obtain", dict[str, Any]),
        ("divide", dict[str, Any]),
        ("score", dict[str, Any]),
        ("calibrate", dict[str, Any]),
        ("renew", dict[str, Any]),
        ("evaluate", dict[str, Any]),
        ("data_fingerprint", str),
        ("bundle_fingerprint", str),
    ],
):
    """Check all parameters together, look at the sources, and give each step what it must know of both.

    It may not be cached. A section that is given in part keeps the compiled values of its other keys.

    Args:
        data_root: Folder or bucket prefix that holds the new images, data.data_root.
        bundle: Folder or bucket prefix of the bundle, recalibrate.bundle.
        alpha: Bound on the error rate of accepted images, scrc.alpha.
        delta: Probability that the bound does not hold, scrc.delta.
        seed: Seed of split and evaluate where they name none of their own, as a text.
        data: The config's section data, without data_root.
        split: The config's section split.
        scrc: The config's section scrc, without alpha and delta.
        export: The config's section export, of which publish_uri is read.
        evaluate: The config's section evaluate.
        recalibrate: The config's section recalibrate, without bundle.
        compiled: All parameters above as they were compiled.
        rest: The compiled sections that are no parameters.
        run: Id of the run, so that no cache answers even where one is asked for by force.

    Returns:
        ingest: Settings of ingest.
        obtain: Settings of obtain.
        divide: Settings of divide.
        score: Settings of score.
        calibrate: Settings of calibrate.
        renew: Settings of renew.
        evaluate: Settings of evaluate.
        data_fingerprint: What data_root holds, told in a text.
        bundle_fingerprint: The bundle_sha256 of the bundle.
    """
    from natix_lib.steps import check_recalibration

    return check_recalibration.run(
        {
            "data_root": data_root,
            "bundle": bundle,
            "alpha": alpha,
            "delta": delta,
            "seed": seed,
            "data": data,
            "split": split,
            "scrc": scrc,
            "export": export,
            "evaluate": evaluate,
            "recalibrate": recalibrate,
        },
        compiled,
        rest,
    )
