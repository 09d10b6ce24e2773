"""Check that `tf.keras` is Keras 2, which this package is written for."""

from __future__ import annotations


def require_keras_2() -> None:
    """Checks that `tf.keras` is Keras 2.

    Up to 2.15 it always is. Later TensorFlows decide when `tf.keras` is first used: Keras 2 if
    tf_keras is installed and the environment has TF_USE_LEGACY_KERAS=1, which `import
    apparel_embed` sets.

    Raises:
      ImportError: if it is Keras 3.
    """
    import tensorflow as tf

    version = getattr(tf.keras, "__version__", "2")
    if not version.startswith("2"):
        raise ImportError(
            f"tf.keras is Keras {version}; expected Keras 2. Install the version of tf_keras "
            f"that matches TensorFlow {tf.__version__}, and import apparel_embed before tensorflow "
            "or set TF_USE_LEGACY_KERAS=1. Only apparel_embed.losses.keras3 works with Keras 3."
        )
