"""What a key may name is what a table elsewhere holds: config stands below most tables and cannot read them."""

from typing import Any, get_args

import pytest

from natix_lib.config import DataSource, Export, Scrc, Sweep
from natix_lib.contracts import POLICY_OF
from natix_lib.contracts import SETS as SETS_OF_IMAGES
from natix_lib.data.sources import LAYOUTS
from natix_lib.decisions.calibration import ON_INFEASIBLE
from natix_lib.decisions.sets import SETS
from natix_lib.decisions.sweep import OBJECTIVES
from natix_lib.documents import BundlePolicy, RoleSet


@pytest.mark.parametrize(
    ("section", "key", "names"),
    [
        (DataSource, "format", ("auto", *LAYOUTS)),
        (Scrc, "on_infeasible", ON_INFEASIBLE),
        (Scrc, "sets", ("none", *SETS)),
        (Sweep, "objective", OBJECTIVES),
        (Export, "policy", POLICY_OF),
        (BundlePolicy, "step", POLICY_OF),
        (RoleSet, "role", SETS_OF_IMAGES),
    ],
)
def test_a_key_takes_what_the_table_holds(section: Any, key: str, names: Any) -> None:
    assert get_args(section.model_fields[key].annotation) == tuple(names)
