"""The first task: every section of the config is checked before anything costs money."""

from typing import Any, NamedTuple

from kfp import dsl

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def check(
    data: dict[str, Any],
    split: dict[str, Any],
    model: dict[str, Any],
    explora: dict[str, Any],
    training: dict[str, Any],
    sweep: dict[str, Any],
    scrc: dict[str, Any],
    export: dict[str, Any],
    evaluate: dict[str, Any],
    with_explora: bool,
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
