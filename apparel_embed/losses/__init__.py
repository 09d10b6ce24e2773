"""Losses: triplets for specialists, regression for the student."""
