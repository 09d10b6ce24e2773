"""Flags of the binaries, and the configurations made from them."""

import os

# TensorFlow reads these when it is loaded. What is set already stays.
# Without the first it writes nine lines about GPU libraries, errors among them, at every start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Without the second some processors take a third longer for a training step.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
