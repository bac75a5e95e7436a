"""What is drawn: scales, charts and vector graphics that hold no text of a report."""
