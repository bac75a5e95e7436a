"""One file, one question. The folder is the registry: a file name without a leading underscore is a probe's name."""
