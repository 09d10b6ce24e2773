"""Evaluation of all models on the same queries."""
