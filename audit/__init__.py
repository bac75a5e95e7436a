"""Residua's kernel: what remains of the thing a model was asked to forget, and how sure can we be?

Probes ask, the bench answers, calibration judges, the report remembers, the dashboard shows.
``audit.run(case)`` runs one audit from Python; everything heavy is imported when it is first needed.
"""

from typing import TYPE_CHECKING, Any

from audit.version import __version__

__all__ = ["__version__", "run"]

if TYPE_CHECKING:
    from audit.engine import run


def __getattr__(name: str) -> Any:
    """Import ``run`` on first use, so that ``import audit`` stays free of torch."""
    if name == "run":
        from audit.engine import run

        return run
    raise AttributeError(f"module 'audit' has no attribute {name!r}")
