"""Flags of the binaries, and the configurations made from them."""

import os

# Read when TensorFlow is loaded; what is set already stays.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
"""Else it writes nine lines about libraries of GPUs, errors among them, at every start."""
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
"""Else it has these kernels on some processors only; on others a step takes a third longer."""
