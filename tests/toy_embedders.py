"""Embedders without TensorFlow, also imported by workers of a cluster."""

import dataclasses
import io
import os
import signal
import time
from pathlib import Path

import numpy as np
from PIL import Image

from apparel_embed.inference.bulk_shard import Answer

HOLD, HOLD_LOADS, CALLS, LOADS = "hold", "hold_loads", "calls", "loads"


@dataclasses.dataclass(frozen=True)
class Colours:
    """Embeds images as their mean colours, notes its process, and waits while `hold` exists."""

    notes: Path
    dim: int = 3
    fields: tuple = ()

    def __call__(self, images):
        note(self.notes / CALLS)
        wait_while(self.notes / HOLD)
        found = [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in images]
        colours = np.float32([one.mean((0, 1)) / 255 for one in found])
        return Answer(np.arange(len(found)), colours, np.ones(len(found), bool))


def load_colours(notes):
    note(notes / LOADS)
    wait_while(notes / HOLD_LOADS)
    return Colours(notes)


def fail_to_load(notes):
    raise RuntimeError(f"{notes}: two\nlines")


class Killer(Colours):
    """Kills its own process."""

    def __call__(self, images):
        os.kill(os.getpid(), signal.SIGKILL)


def load_killers(notes):
    return Killer(notes)


def wait_while(path):
    while path.exists():
        time.sleep(0.01)


def note(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


def noted(path):
    """Returns the process ids in a file of notes."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []
