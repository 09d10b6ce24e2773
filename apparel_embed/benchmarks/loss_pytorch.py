"""Measures pytorch-metric-learning's semi-hard loss: run by an interpreter that has it.

Its definition differs: for every positive pair all negatives with
d(a, p) < d(a, n) <= d(a, p) + margin make a triplet, where ours takes the one nearest of those that
are farther (or else the farthest); a pair without such negatives makes none; and the mean is over
the triplets with a loss above 0.
"""

from __future__ import annotations

import json
import sys

import torch
from measure import measure
from pytorch_metric_learning import distances, losses, miners


def main() -> None:
    """Prints the measurement as JSON; argv[1] is JSON too."""
    task = json.loads(sys.argv[1])
    torch.manual_seed(task["seed"])
    embeddings = torch.nn.functional.normalize(torch.randn(task["batch_size"], task["dim"]))
    embeddings.requires_grad_()
    labels = torch.arange(task["batch_size"]) // task["pictures_per_item"]
    labels = labels[torch.randperm(task["batch_size"])]
    distance = distances.LpDistance(normalize_embeddings=False)
    miner = miners.TripletMarginMiner(
        margin=task["margin"], type_of_triplets="semihard", distance=distance
    )
    loss = losses.TripletMarginLoss(margin=task["margin"], distance=distance)

    def call() -> float:
        embeddings.grad = None
        value = loss(embeddings, labels, miner(embeddings, labels))
        value.backward()
        return float(value)

    print(json.dumps(measure(call, seconds=task["seconds"])))


if __name__ == "__main__":
    main()
