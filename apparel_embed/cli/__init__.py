"""Flags of the binaries, and the configurations made from them."""

import os

# Before TensorFlow is loaded, which else writes nine lines about libraries of GPUs, errors among
# them, at every start. Who wants them sets 0.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
