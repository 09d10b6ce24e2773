"""Visual search: an index of embeddings, and a service and a page that ask it."""
