"""Which measures of unlearning can be trusted: the published meta-evaluation, done again on models of known truth."""
