"""Requests to a search service."""

import io

import numpy as np
from PIL import Image


def encoded(width=60, height=40, kind="PNG", seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def search(client, image, name="image.jpg", kind="image/jpeg", headers=None, **fields):
    return client.post(
        "/api/search", files={"file": (name, image, kind)}, data=fields, headers=headers
    )


def street_images(catalogue, vertical):
    records = catalogue.dataset.select(split="test", verticals=[vertical], roles=["query"])
    return records, catalogue.dataset.read_images(records)
