"""Which calibrations judge a case: those of its base's own kind that lie beside it, else those that come with probes.

What lies beside the case and may not judge it (another base, another template, changed or unfinished files) is named
in the report with the reason.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from audit.calibration import Bound, Moved, ProbeIdentity, find_own, refusal, stored
from audit.case import OpenCase
from audit.judging import ApplicableCalibrations, refused, stand
from audit.schema import Domain

OWN_COMMAND: Final = "residua calibrate --on case.toml"


def standing_of(
    case: OpenCase, stated: Path | None, ran: Mapping[str, ProbeIdentity], domain: Domain, moved: Moved
) -> ApplicableCalibrations:
    """The calibrations that judge this case: of the folder that the user ``stated``, of its base's own kind, or stored.

    AuditError (code 3) where stored or stated calibrations belong to other models than they name.
    """
    bound = Bound.of(case.base.model_copy(update={"vocabulary": None}).key, case.case.template)
    if stated is not None:
        fault = refusal(stated, bound)
        return refused(ran, fault) if fault else stand(stated, ran, domain, moved)
    own, because = find_own(case.root, bound), ""
    if own is not None:
        standing = refused(ran, own.refused) if own.refused else stand(own.path, ran, domain, moved)
        if standing.holding:
            return standing
        because = next((use.because for use in standing.uses if use.status != "none"), "")
    general = stand(stored(case.modality), ran, domain, moved)
    return _renewed_here(general, because, case.modality == "text")


def _renewed_here(standing: ApplicableCalibrations, because: str, text: bool) -> ApplicableCalibrations:
    """The same, with what is to be said of calibrations of the case's own kind, and with the command that makes them
    where those that are stored are of another kind of model."""
    uses = tuple(
        use.model_copy(
            update={
                "because": f"{use.because}; {because}" if because else use.because,
                "renew": OWN_COMMAND if text and use.status == "outside" else use.renew,
            }
        )
        for use in standing.uses
    )
    return standing._replace(uses=uses)
