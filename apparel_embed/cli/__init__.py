"""Flags of the binaries and the configurations built from them."""

import os

# TensorFlow reads these when it is loaded. Values that are already set are kept.
# Without the first, it logs nine lines about GPU libraries, including errors, at every start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Without the second, a training step takes a third longer on some processors.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
