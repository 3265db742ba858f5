"""The first task of a run on a cluster: parameters are checked and sources looked at before anything costs money."""

from typing import Any, NamedTuple

from kfp import dsl

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def check(
    data_root: str,
    backbone_id: str,
    policy: str,
    alpha: float,
    delta: float,
    epochs: int,
    lr: float,
    num_gpus: str,
    seed: str,
    data: dict[str, Any],
    split: dict[str, Any],
    model: dict[str, Any],
    explora: dict[str, Any],
    training: dict[str, Any],
    sweep: dict[str, Any],
    scrc: dict[str, Any],
    export: dict[str, Any],
    evaluate: dict[str, Any],
    compiled: dict[str, Any],
    run: str,
    token_secret: str,
) -> NamedTuple(
    "Settings",
    [
        ("ingest", dict[str, Any]),
        ("split", dict[str, Any]),
        ("fetch", dict[str, Any]),
        ("adapt", dict[str, Any]),
        ("train", dict[str, Any]),
        ("sweep", dict[str, Any]),
        ("calibrate", dict[str, Any]),
        ("export", dict[str, Any]),
        ("evaluate", dict[str, Any]),
        ("data_fingerprint", str),
        ("previous_fingerprint", str),
        ("backbone_fingerprint", str),
    ],
):
    """Check all parameters together, look at the sources, and give each step what it must know of both.

    It may not be cached. A section that is given in part keeps the compiled values of its other keys.

    Args:
        data_root: Folder or bucket prefix that holds the images, data.data_root.
        backbone_id: Hub id, folder or bucket prefix of the backbone, model.backbone_id.
        policy: Policy that ships, sweep or calibrate, export.policy.
        alpha: Bound on the error rate of accepted images, scrc.alpha.
        delta: Probability that the bound does not hold, scrc.delta.
        epochs: Most passes over TRAIN, training.epochs.
        lr: Highest learning rate of the head, training.optimizer.lr.
        num_gpus: GPUs of a node as a text, hardware.num_gpus.
        seed: Seed of every section that names none of its own, as a text.
        data: The config's section data, without data_root.
        split: The config's section split.
        model: The config's section model, without backbone_id.
        explora: The config's section explora.
        training: The config's section training, without epochs and optimizer.lr.
        sweep: The config's section sweep.
        scrc: The config's section scrc, without alpha and delta.
        export: The config's section export, without policy.
        evaluate: The config's section evaluate.
        compiled: All parameters above as they were compiled.
        run: Id of the run, so that no cache answers even where one is asked for by force.
        token_secret: Id in Secret Manager of the hub's token; empty where HF_TOKEN is set or none is needed.

    Returns:
        ingest: Settings of ingest.
        split: Settings of split.
        fetch: Settings of fetch.
        adapt: Settings of adapt.
        train: Settings of train.
        sweep: Settings of sweep.
        calibrate: Settings of calibrate.
        export: Settings of export.
        evaluate: Settings of evaluate.
        data_fingerprint: What data_root holds, told in a text.
        previous_fingerprint: What split.previous holds, told in a text.
        backbone_fingerprint: What the backbone's folder holds, told in a text, or its commit on the hub.
    """
    from natix_lib.steps import check

    return check.run(
        {
            "data_root": data_root,
            "backbone_id": backbone_id,
            "policy": policy,
            "alpha": alpha,
            "delta": delta,
            "epochs": epochs,
            "lr": lr,
            "num_gpus": num_gpus,
            "seed": seed,
            "data": data,
            "split": split,
            "model": model,
            "explora": explora,
            "training": training,
            "sweep": sweep,
            "scrc": scrc,
            "export": export,
            "evaluate": evaluate,
        },
        compiled,
        token_secret,
    )
