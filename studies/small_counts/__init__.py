"""Which tests and intervals over few people hold what they promise when people are skewed, heavy-tailed or tied."""
