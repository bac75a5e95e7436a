"""What can be read in a pass, and how it is reduced as it streams by."""
