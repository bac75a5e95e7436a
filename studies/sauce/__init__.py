"""What the suppression of a concept by its features takes away, what it costs, and what brings it back."""
