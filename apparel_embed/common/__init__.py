"""Shared utilities: errors, files, text, progress, locks, the cluster."""
