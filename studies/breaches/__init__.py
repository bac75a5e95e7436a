"""Which holes were open in an earlier build, and whether they are closed: the same inputs given to both builds."""
