"""Exact nearest neighbours and retrieval metrics."""
