"""Models of known truth, and how to make them."""
