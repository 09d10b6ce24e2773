"""TensorFlow Addons' losses, and stored values and gradients for a few batches.

TFA has no release for Python 3.12 and later. There our losses are compared only with the stored
numbers. `python tests/addons_losses.py` stores them again if TFA is installed.
"""

import dataclasses
import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
from loss_batches import UNTIED, make_batch, value_and_gradient

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons as tfa
except ImportError:
    tfa = None

needs_addons = pytest.mark.skipif(
    tfa is None, reason="TensorFlow Addons has no release for this Python"
)

STORED = Path(__file__).parent / "losses/addons.npz"
METRICS = ("L2", "squared-L2", "angular")


@dataclasses.dataclass(frozen=True)
class Case:
    """A loss of TFA, with its name and arguments, and a kind of batch."""

    loss: str
    arguments: tuple
    kind: str
    seed: int

    @property
    def key(self):
        return " ".join(map(str, (self.loss, *self.arguments, self.kind)))


CASES = [
    Case(loss, arguments, kind, seed)
    for seed, ((loss, arguments), kind) in enumerate(
        itertools.product(
            [
                *(("triplet_semihard_loss", (m, d)) for m in (0.3, 1.0) for d in METRICS),
                *(("triplet_hard_loss", (0.3, soft, d)) for soft in (False, True) for d in METRICS),
                ("lifted_struct_loss", (1.0,)),
            ],
            UNTIED,
        )
    )
]
"""The stored cases. No two distances are equal, as the gradient would be ambiguous."""


def stored():
    """Returns labels, embeddings, value and gradient by key of each case."""
    with np.load(STORED) as file:
        return {
            case.key: tuple(
                file[f"{case.key}/{part}"] for part in ("labels", "embeddings", "value", "gradient")
            )
            for case in CASES
        }


def computed(case, labels, embeddings):
    """Returns value and gradient of TFA itself."""
    loss = getattr(tfa.losses, case.loss)
    return value_and_gradient(lambda *batch: loss(*batch, *case.arguments), labels, embeddings)


def main():
    arrays = {}
    for case in CASES:
        labels, embeddings = make_batch(case.seed, 16, 4, 5, case.kind)
        value, gradient = computed(case, labels, embeddings)
        parts = {"labels": labels, "embeddings": embeddings, "value": value, "gradient": gradient}
        arrays |= {f"{case.key}/{part}": array for part, array in parts.items()}
    np.savez_compressed(STORED, **arrays)


if __name__ == "__main__":
    main()
