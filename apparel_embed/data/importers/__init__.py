"""Turns datasets on disk into manifests: one module per layout."""
