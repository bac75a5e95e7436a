"""Report to figure: pure functions, shared by the interactive report and the dashboard."""
