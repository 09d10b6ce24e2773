"""A loss with its own parameter: InfoNCE of the embeddings of an item against all others."""

import dataclasses
import functools

import tensorflow as tf

from apparel_embed.common.settings import setting
from apparel_embed.losses.config import LossConfig
from apparel_embed.losses.keras import WholeBatchLoss
from apparel_embed.losses.registry import RegisteredLoss


@dataclasses.dataclass(frozen=True)
class InfoNCEConfig(LossConfig):
    temperature: float = setting(0.1, "temperature of InfoNCE", 0.001, 10.0)


def info_nce(items, embeddings, temperature):
    itself = tf.eye(tf.shape(items)[0], dtype=tf.bool)
    positive = (items[:, None] == items[None]) & ~itself
    logits = tf.matmul(embeddings, embeddings, transpose_b=True) / temperature
    logits -= tf.reduce_logsumexp(tf.where(itself, -1e9, logits), axis=1, keepdims=True)
    return -tf.reduce_mean(tf.boolean_mask(logits, positive))


LOSS = RegisteredLoss(
    lambda config: WholeBatchLoss(
        functools.partial(info_nce, temperature=config.temperature), "info_nce"
    ),
    InfoNCEConfig,
)
