"""A stage with its own setting: counts the items that have enough images."""

import collections
import dataclasses

from apparel_embed.common.settings import setting
from apparel_embed.runs.run import StageKind
from apparel_embed.store.names import STUDENT
from apparel_embed.store.record import fingerprints


@dataclasses.dataclass(frozen=True)
class CountConfig:
    enough_images: int = setting(2, "images with which an item counts as known", 1)


def make(pipeline):
    dataset, enough = pipeline.run.dataset, pipeline.settings(CountConfig).enough_images

    def work(directory):
        images = collections.Counter(dataset.codes("item_id")[0].tolist())
        known = sum(count >= enough for count in images.values())
        (directory / "known.txt").write_text(f"{known}\n", "utf-8")
        return {"known": known}

    flags = {"enough_images": enough}
    inputs = fingerprints(pipeline[STUDENT])
    size = f"{len(dataset)} images to count"
    return [pipeline.run.make("known-items", work, flags=flags, inputs=inputs, size=size)]


KIND = StageKind("known-items", make, config=CountConfig)
