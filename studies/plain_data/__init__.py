"""Clean models, and what is known of them, from question, answer and group alone."""
