"""Arrow's functions on texts, where Arrow is installed: a base install, which scores and looks at data, has none."""

from typing import Any

pa: Any = None
pc: Any = None
try:
    import pyarrow
    import pyarrow.compute

    pa, pc = pyarrow, pyarrow.compute
except ImportError:
    pass
HAS_ARROW = pa is not None
