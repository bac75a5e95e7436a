"""One architecture a file, for checkpoints that are modules of torch: ``build(labels, channels, ...)`` makes it.

The folder is the list, and a file's name is what ``module`` in config.json calls it by.
"""
