"""What may be changed on the way through a model: one write a file, the file's name its kind; nothing else lists it."""
