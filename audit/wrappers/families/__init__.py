"""One model family a file: how its checkpoints are opened."""
