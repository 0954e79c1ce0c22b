"""An edge/mobile model-optimization workbench: from a checkpoint to measured mobile artifacts."""

import os

# onnxruntime sends telemetry by default from 1.29 on; it reads this when it is first imported, so
# it is set before anything here can import it, and child processes inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
