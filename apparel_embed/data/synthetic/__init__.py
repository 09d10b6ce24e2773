"""Synthetic garments: images with item identity, for trying the method without a download."""
