"""One extension of each kind, added as a user would: one module and one line each."""
