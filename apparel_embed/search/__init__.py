"""Visual search: an index of embeddings, and the service and page that query it."""
