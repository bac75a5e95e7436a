"""Which tokens put into prompts make a model say more than it does without them: the searches that know no trigger."""
