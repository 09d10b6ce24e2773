"""The report of a run: one HTML page, readable offline, and its figures as PNG files."""
