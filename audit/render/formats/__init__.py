"""One format a file: HTML, Markdown, terminal, JUnit, sheets, live figures, the JSON schema."""
