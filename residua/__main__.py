"""``python -m residua`` is ``residua``."""

import sys

from audit.cli import main

if __name__ == "__main__":
    sys.exit(main())
