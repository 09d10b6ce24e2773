"""Gathering a batch that is divided between replicas."""

from __future__ import annotations

import tensorflow as tf


def gather_replicas(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the labels and embeddings of all replicas, in replica order.

    Call it on each replica for a loss of the whole batch. Every replica then computes the same
    loss, and its gradient w.r.t. the replica's own embeddings. Summed over the replicas, as
    optimisers do, the gradients w.r.t. the weights equal those of one device with the whole batch.
    Do not divide them by the number of replicas.

    Outside a strategy, or with one replica, returns its arguments.

    Args:
      labels: [own batch] or [own batch, ...]; replicas may have parts of different lengths.
      embeddings: float [own batch, dim].

    Returns:
      labels [batch] or [batch, ...] and embeddings [batch, dim].
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return labels, embeddings
    # A graph's argument has no device, which multi-worker collectives need; an identity has one.
    labels = context.all_gather(tf.identity(labels), axis=0)

    @tf.custom_gradient
    def gather(own: tf.Tensor) -> tuple:
        counts = context.all_gather(tf.shape(own)[:1], axis=0)
        begin = tf.cumsum(counts, exclusive=True)[context.replica_id_in_sync_group]

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # All replicas compute the same loss, so there is nothing to sum between them.
            return tf.reshape(upstream[begin : begin + tf.shape(own)[0]], tf.shape(own))

        return context.all_gather(own, axis=0), gradient

    return labels, gather(tf.convert_to_tensor(embeddings))
