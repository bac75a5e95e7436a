"""``python -m studies.large.audited CASE OUT PACKAGE [flags of residua run]``: one audit by some of the probes."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from audit.case import CaseFile
from audit.cli import flags
from audit.engine import run


def main() -> None:
    """Audit, with an empty store that is not kept."""
    case, out, package, *rest = sys.argv[1:]
    parser = argparse.ArgumentParser()
    flags.add_settings(parser)
    settings = flags.settings(parser.parse_args([*rest, "--store", f"{out}-store"]))
    run(CaseFile.read(Path(case)), Path(out), replace(settings, package=package))


if __name__ == "__main__":
    main()
