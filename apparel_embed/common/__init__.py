"""What anything may use: errors, files, text, progress, locks, the cluster."""
