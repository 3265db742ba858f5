from pathlib import Path

from kfp.dsl import Metrics

from natix_lib.files import read_json
from natix_lib.steps.shown import show_metrics


def test_values_are_in_the_metadata_and_in_a_file_that_kfps_cache_can_find(tmp_path: Path) -> None:
    metrics = Metrics(uri=str(tmp_path / "metrics"))
    show_metrics(metrics, {"accuracy": 0.5})
    assert metrics.metadata == read_json(tmp_path / "metrics") == {"accuracy": 0.5}
