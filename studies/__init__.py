"""Models of known truth, and one folder a question: study.py, README.md, results.json."""
