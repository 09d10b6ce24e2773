"""From specialists to the student: aligned targets, and how well a student meets them."""
