"""Which families of causal language models open, behind which backend, and a choice of them audited whole."""
