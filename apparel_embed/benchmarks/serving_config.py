"""What the benchmark of serving measures."""

from __future__ import annotations

import dataclasses

from apparel_embed.common.settings import seed_setting, setting


@dataclasses.dataclass(frozen=True)
class ServingBenchmark:
    """What to measure."""

    batch_size: int = setting(
        32, "images asked for at once, spread evenly over the specialists", 1, 4096
    )
    rounds: int = setting(20, "how often each is measured, in turns", 1)
    specialists: int = setting(8, "specialists to make up", 1, 64, flag="made_up_specialists")
    image_width: int = setting(
        640, "width of images to make up, in pixels; their height is 3/4 of it", 1, 5000
    )
    seed: int = seed_setting("what is made up")
