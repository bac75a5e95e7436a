"""Have the committed behaviours say that what is installed gives their numbers too, where it does.

``python -m studies.zoo.attest`` after a refactoring: the behaviour of every probe whose sources are others is computed
again and compared, and its record beside the scores and the calibrations names the sources as they are now. No score,
calibration or number is touched. Exit code 3 names the probes that behave otherwise: these are scored again.
"""

import logging

from audit.calibration import InstalledBehaviours, attest, stored
from audit.pools import SCORES
from audit.probing import behaviour_of
from audit.schema import ExitCode

log = logging.getLogger(__name__)


def main() -> int:
    """Attest both folders, and log what behaves otherwise."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    behaviours = InstalledBehaviours("probes", behaviour_of)
    others = sorted({probe for folder in (SCORES, stored()) for probe in attest(folder, behaviours)})
    if others:
        log.error("these behave otherwise than when they scored: %s", ", ".join(others))
        return ExitCode.INTEGRITY
    log.info("every probe behaves as it did when it scored")
    return ExitCode.OK


if __name__ == "__main__":
    raise SystemExit(main())
