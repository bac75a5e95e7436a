"""A parser of releases a file. The folder is the registry."""
