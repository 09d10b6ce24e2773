"""Synthetic garments: images with item identity, to try the method without a download."""
