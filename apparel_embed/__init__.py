"""One embedding model for every apparel vertical, trained on the embeddings of specialists.

The names below cover training a model on a prepared dataset, evaluating it and serving it.
Everything else is in the modules. Names are imported from their modules on first use, so a
program that only needs a dataset does not load TensorFlow.

Examples:
  >>> import apparel_embed as ae
  >>> model = ae.EmbeddingModel(ae.ModelConfig(image_size=32, embedding_dim=8))
  >>> model.compile("adam", loss=ae.TripletSemiHardLoss(margin=0.3))
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apparel_embed.common.errors import UserError
    from apparel_embed.data.config import AugmentConfig
    from apparel_embed.data.prepare import prepare
    from apparel_embed.data.prepare_plan import PrepareConfig
    from apparel_embed.data.prepared import PreparedDataset, load_prepared
    from apparel_embed.evaluation.neighbours import nearest
    from apparel_embed.evaluation.retrieval import Estimate, RetrievalResult, evaluate_retrieval
    from apparel_embed.inference.embed import Embedder
    from apparel_embed.losses.keras import LiftedStructLoss, TripletHardLoss, TripletSemiHardLoss
    from apparel_embed.models.config import ModelConfig
    from apparel_embed.models.embedding import EmbeddingModel
    from apparel_embed.serving.client import Client, ClientConfig
    from apparel_embed.serving.errors import ServingError
    from apparel_embed.serving.exported import ExportConfig
    from apparel_embed.serving.local import LocalModel
    from apparel_embed.serving.saved_model import export_saved_model
    from apparel_embed.training.input import triplet_dataset

__version__ = "0.2.0"

# The package is written for Keras 2. TensorFlow 2.16 and later use tf_keras if this is set before
# `tf.keras` is used. Without tf_keras only `apparel_embed.losses.keras3` works, for Keras 3.
if sys.version_info >= (3, 12) and importlib.util.find_spec("tf_keras"):
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

__all__ = [
    "AugmentConfig",
    "Client",
    "ClientConfig",
    "Embedder",
    "EmbeddingModel",
    "Estimate",
    "ExportConfig",
    "LiftedStructLoss",
    "LocalModel",
    "ModelConfig",
    "PrepareConfig",
    "PreparedDataset",
    "RetrievalResult",
    "ServingError",
    "TripletHardLoss",
    "TripletSemiHardLoss",
    "UserError",
    "evaluate_retrieval",
    "export_saved_model",
    "load_prepared",
    "nearest",
    "prepare",
    "triplet_dataset",
]

_MODULE_OF = {
    "AugmentConfig": "data.config",
    "Client": "serving.client",
    "ClientConfig": "serving.client",
    "Embedder": "inference.embed",
    "EmbeddingModel": "models.embedding",
    "Estimate": "evaluation.retrieval",
    "ExportConfig": "serving.exported",
    "LiftedStructLoss": "losses.keras",
    "LocalModel": "serving.local",
    "ModelConfig": "models.config",
    "PrepareConfig": "data.prepare_plan",
    "PreparedDataset": "data.prepared",
    "RetrievalResult": "evaluation.retrieval",
    "ServingError": "serving.errors",
    "TripletHardLoss": "losses.keras",
    "TripletSemiHardLoss": "losses.keras",
    "UserError": "common.errors",
    "evaluate_retrieval": "evaluation.retrieval",
    "export_saved_model": "serving.saved_model",
    "load_prepared": "data.prepared",
    "nearest": "evaluation.neighbours",
    "prepare": "data.prepare",
    "triplet_dataset": "training.input",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
