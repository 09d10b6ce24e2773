"""One embedding model for every apparel vertical, learnt from one specialist each."""

__version__ = "0.1.0"
