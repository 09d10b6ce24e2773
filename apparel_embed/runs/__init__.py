"""Runs: their stages in order, dry-run plans, and comparisons of several runs."""
