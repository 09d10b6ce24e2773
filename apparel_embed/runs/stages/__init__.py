"""One module for each kind of stage of a run; `registry` lists them all."""
