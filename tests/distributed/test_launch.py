import pytest
import torch

from natix_lib.distributed.launch import processes_for
from tests.kubernetes_api import nodes


def test_one_process_for_each_gpu_of_each_node(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes_for(4, nodes(num_nodes=3)) == 12
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert processes_for(4, None) == 4 and processes_for(0, None) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert processes_for(4, None) == 1
