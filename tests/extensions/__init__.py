"""One new thing of each kind, as somebody would add it: a module each, and a line each."""
