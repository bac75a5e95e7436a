"""Report to terminal, HTML, Markdown: pure functions of the report. Never imports torch or streamlit."""
