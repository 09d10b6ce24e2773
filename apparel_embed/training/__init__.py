"""Training of specialists, student, detector and vertical head."""
