"""Flags of the binaries, and the configurations made from them."""
