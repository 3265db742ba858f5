"""What ships, and how it is opened and scored.

onnxruntime's own builds collect usage data from 1.32 on: when it is imported it writes an identifier of the machine to
the user's cache, and prints a warning where there is none. Scoring tells nobody, so that is off before it is imported;
`ORT_DISABLE_TELEMETRY=0` in the environment leaves it on.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
