"""Datasets as people have them on disk, turned into manifests: one module per layout."""
