"""What the stages of making and auditing a world cost."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from audit.storage import write_atomic


class Costs:
    """CPU-seconds by stage, kept beside the audits, so that an interrupted world still knows what it cost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cpu_s = Counter[str](json.loads(path.read_bytes()) if path.is_file() else {})

    def spent(self, stage: str, since: float) -> None:
        """Count the CPU-seconds of this process since ``since`` towards a stage."""
        self.add({stage: time.process_time() - since})

    def add(self, cpu_s: Mapping[str, float]) -> None:
        """Count CPU-seconds by stage."""
        self.cpu_s.update({stage: round(seconds, 3) for stage, seconds in cpu_s.items()})
        write_atomic(self.path, json.dumps(self.cpu_s, sort_keys=True).encode())
