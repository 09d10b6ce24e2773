"""The search for verticals that can share a specialist."""
