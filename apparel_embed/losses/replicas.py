"""A batch that several replicas hold parts of."""

from __future__ import annotations

import tensorflow as tf


def gather_replicas(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the labels and embeddings of all replicas, in their order.

    To be called by each replica, for a loss of the whole batch: every replica then computes the
    same loss, and the gradient that it takes by its own embeddings is that loss's, once. Summed
    over the replicas, as optimisers do, gradients by the weights equal those of one device that
    has the whole batch. Not to be divided by the number of replicas again.

    Outside of a strategy, or with one replica, returns what it is given.

    Args:
      labels: [own batch] or [own batch, ...]; a replica's may be shorter than another's.
      embeddings: float [own batch, dim].

    Returns:
      labels [batch] or [batch, ...] and embeddings [batch, dim].
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return labels, embeddings
    # An identity, as the argument of a graph is on no device, which several processes want to know.
    labels = context.all_gather(tf.identity(labels), axis=0)

    @tf.custom_gradient
    def gather(own: tf.Tensor) -> tuple:
        counts = context.all_gather(tf.shape(own)[:1], axis=0)
        begin = tf.cumsum(counts, exclusive=True)[context.replica_id_in_sync_group]

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # Not the sum over the replicas, all of which have the same: no need to ask them.
            return tf.reshape(upstream[begin : begin + tf.shape(own)[0]], tf.shape(own))

        return context.all_gather(own, axis=0), gradient

    return labels, gather(tf.convert_to_tensor(embeddings))
