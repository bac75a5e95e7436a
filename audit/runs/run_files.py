"""The files and folders of a run folder, each said once."""

from typing import Final

PLAN: Final = "plan.json"
REPORT: Final = "report.json"
PAGE: Final = "report.html"
MARKDOWN: Final = "report.md"
JUNIT: Final = "junit.xml"
MANIFEST: Final = "manifest.sha256"
CUSTODY: Final = "custody.jsonl"
EVENTS: Final = "events.jsonl"
LOG: Final = "run.log"
MASK_KEY: Final = "mask.key"
LOCK: Final = "run.lock"
CANCEL: Final = "cancel"
UNITS: Final = "units"
TABLES: Final = "tables"
SUPERSEDED: Final = "superseded"
