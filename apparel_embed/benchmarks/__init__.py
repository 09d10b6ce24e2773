"""Benchmarks of speed and size, as ratios measured in one run."""
