"""Run directories: stages, which are renamed when complete, and their records."""
