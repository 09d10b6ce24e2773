"""Visual search: an index of embeddings in Milvus, and a service and a page that ask it."""
