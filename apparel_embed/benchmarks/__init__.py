"""Benchmarks: how fast and how large, as ratios measured in one run."""
