"""What small cases can be told: the zoo's people cut down to a few."""
