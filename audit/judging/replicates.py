"""What an audit counts, by its evidence: people, or where its items are images, the images or their groups."""

from collections.abc import Iterable

from audit.schema import Evidence, Measurement
from audit.wording import PERSON, REPLICATES, Replicate


def replicates_of(evidence: Iterable[Evidence]) -> Replicate:
    """The unit of an audit: that of the first measurement that replicates over people, images or groups."""
    units = (e.measurement.unit_of_replication for e in evidence)
    return next((REPLICATES[unit] for unit in units if unit in REPLICATES), PERSON)


def unit_of(measurement: Measurement) -> Replicate:
    """The unit of one measurement that is judged."""
    return REPLICATES.get(measurement.unit_of_replication, PERSON)
