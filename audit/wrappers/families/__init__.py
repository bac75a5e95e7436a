"""One kind of model a file: how its checkpoints are opened. The folder is the list (:mod:`audit.wrappers.family`)."""
