"""Settings of the benchmark of serving."""

from __future__ import annotations

import dataclasses

from apparel_embed.common.settings import seed_setting, setting


@dataclasses.dataclass(frozen=True)
class ServingBenchmark:
    """Settings of the benchmark."""

    batch_size: int = setting(32, "images per request, spread evenly over the specialists", 1, 4096)
    rounds: int = setting(20, "how many times each is measured, in turns", 1)
    specialists: int = setting(
        8, "number of made-up specialists", 1, 64, flag="made_up_specialists"
    )
    image_width: int = setting(
        640, "width of made-up images, in pixels; their height is 3/4 of it", 1, 5000
    )
    seed: int = seed_setting("made-up models and images")
