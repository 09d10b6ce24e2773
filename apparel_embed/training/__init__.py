"""Training of specialists and student, and the targets between them."""
