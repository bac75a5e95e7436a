"""What edits leave in the weights: value vectors, forms of a fact, and the traces of the edit itself."""
