"""What may be changed on the way through a model: one write a file."""
