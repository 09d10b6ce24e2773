"""Synthetic garments: pictures with item identity, for trying the method without a download."""
