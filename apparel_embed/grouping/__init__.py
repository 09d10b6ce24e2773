"""Which verticals can share a specialist."""
