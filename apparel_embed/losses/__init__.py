"""Losses: triplet losses for specialists, regression losses for the student."""
