"""Manifests, prepared datasets, synthetic garments and the input pipeline."""
