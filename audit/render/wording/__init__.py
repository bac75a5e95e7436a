"""The sentences of a report, and how sure a verdict is for its reader."""
