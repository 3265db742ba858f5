"""The first task: every section of the config is checked before anything costs money."""

from typing import NamedTuple

from kfp import dsl

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def check(
    data: dict,
    split: dict,
    model: dict,
    explora: dict,
    training: dict,
    sweep: dict,
    scrc: dict,
    export: dict,
    evaluate: dict,
    with_explora: bool,
) -> NamedTuple(
    "Settings",
    [
        ("ingest", dict),
        ("split", dict),
        ("fetch", dict),
        ("adapt", dict),
        ("train", dict),
        ("sweep", dict),
        ("calibrate", dict),
        ("export", dict),
        ("evaluate", dict),
    ],
):
    """Check all sections together and give each step the settings that it reads."""
    from natix_lib.steps import check

    return check.run(
        {
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
        with_explora,
    )
