"""Evaluation of all models with the same queries."""
