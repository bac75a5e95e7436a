"""How much does looking cost? The benchmark suite: CPU-seconds and peak memory against the alternatives."""
