"""What edits leave in the weights: value vectors, forms, and the traces of the edit itself, on models of known truth."""
