"""What a probe is: one question about a case, answered with numbers and never a verdict."""

from abc import ABC, abstractmethod
from typing import ClassVar

from audit.bench import Bench
from audit.case import OpenCase
from audit.probing.group_tests import GroupTest
from audit.schema import Case, Cost, Measurement, Need, Record, Requires


class Probe(Record, ABC):
    """Base of every probe. Fields are its settings.

    The class docstring is the user's help text: its first line asks the question, and it states ``Null:``,
    ``Positive control:``, ``Blind to:`` and ``Cite:``. ``version`` enters the plan hash: raise it when numbers change.
    ``attack`` names the attack that the probe makes, in a word ("relearning", "quantisation", "prefix", or one of its
    own): the report counts it as tested by this word alone. ``screening``: its numbers say where to look and test
    nothing, so that none of them has a p.
    """

    requires: ClassVar[Requires]
    version: ClassVar[int] = 1
    attack: ClassVar[str | None] = None
    screening: ClassVar[bool] = False

    @abstractmethod
    def needs(self, case: Case) -> tuple[Need, ...]:
        """The cacheable reads of this probe. Merged over probes, priced exactly and fetched once."""

    @abstractmethod
    def cost(self, case: OpenCase) -> Cost:
        """What measuring costs beyond the needs."""

    def groups_tested(self, case: OpenCase) -> GroupTest | None:
        """The randomisation test over people that this probe's evidence rests on, to say beforehand whether a case has
        enough of them; None: it makes none, as a gate does not."""
        return None

    @abstractmethod
    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """Answer the question. Raises AuditError for what a user can fix; anything else is recorded as a failure."""
