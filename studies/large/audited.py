"""``python -m studies.large.audited CASE OUT PACKAGE [MEMORY]``: one audit by the probes of a package.

With ``MEMORY`` (such as 600M) that is what the weights of a model may take; the others are read from their files.
"""

import sys
from pathlib import Path

from audit.case import CaseFile
from audit.engine import run
from audit.planning import RunSettings


def main() -> None:
    """Audit, with an empty store that is not kept."""
    case, out, package, *memory = sys.argv[1:]
    placed = {"device_map": "auto", "max_memory": memory[0]} if memory else {}
    run(CaseFile.read(Path(case)), Path(out), RunSettings(store=Path(f"{out}-store"), package=package, **placed))


if __name__ == "__main__":
    main()
