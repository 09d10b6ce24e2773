"""Between specialists and student: aligned targets, and how well a student meets them."""
