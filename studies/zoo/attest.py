"""Have the committed behaviours say that what is installed gives their numbers too, where it does.

``python -m studies.zoo.attest`` after a refactoring: the behaviour of every probe whose sources are others is computed
again and compared, and its record beside the scores and the calibrations names the sources as they are now. No score,
calibration or number is touched. Exit code 3 names the probes that behave otherwise: these are scored again.
"""

import logging

from audit.calibration import attest, stored
from audit.pools import KINDS, behaviours
from audit.schema import ExitCode

log = logging.getLogger(__name__)


def main() -> int:
    """Attest the folders of every kind of models, and log what behaves otherwise."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    others: set[str] = set()
    for kind in KINDS.values():
        installed = behaviours("probes", kind.kind)
        for folder in (kind.scores, stored(kind.modality)):
            others |= set(attest(folder, installed))
    if others:
        log.error("these behave otherwise than when they scored: %s", ", ".join(sorted(others)))
        return ExitCode.INTEGRITY
    log.info("every probe behaves as it did when it scored")
    return ExitCode.OK


if __name__ == "__main__":
    raise SystemExit(main())
