"""A whole run: its stages in order, its plan, and comparisons with other runs."""
