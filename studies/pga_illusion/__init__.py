"""The same edited model, read on the texts it was edited on and on fresh ones."""
