"""Images of a prepared dataset as model input, and their embeddings."""
