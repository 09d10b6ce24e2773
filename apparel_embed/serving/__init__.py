"""SavedModel export, and what asks it for embeddings: in this process or a server."""

from apparel_embed.serving.embeddings import Embeddings
from apparel_embed.serving.local import LocalModel

__all__ = ["Embeddings", "LocalModel"]
