"""Forecasts below the folder of runs: found, read, and told apart from what cannot be shown."""

import json
from typing import Final, NamedTuple

from pydantic import ValidationError

from audit.schema import ForecastReport, forecast_id
from audit.wording import CELL, visible
from dashboards.vault import MB, Refused, Vault

NAME: Final = "forecast.json"
CAP: Final = 32 * MB


class ForecastFile(NamedTuple):
    """A forecast by its folder, or why there is none to show there."""

    folder: str
    report: ForecastReport | None
    reason: str = ""


def folders(vault: Vault) -> tuple[str, ...]:
    """Every folder that holds a forecast, by path."""
    return tuple(sorted(path.rpartition("/")[0] for path in vault.files("") if path.rpartition("/")[2] == NAME))


def read(vault: Vault, folder: str) -> ForecastFile:
    """A forecast, verified: its id must be that of its own content. Never raises."""
    path = f"{folder}/{NAME}" if folder else NAME
    try:
        report = ForecastReport.model_validate(json.loads(vault.read(path, CAP)))
    except Refused as error:
        return ForecastFile(folder, None, error.what)
    except (ValidationError, ValueError, RecursionError) as error:
        first = str(error).partition("\n")[0]
        return ForecastFile(
            folder, None, f"{visible(path, CELL)} is no forecast that this version reads: {visible(first, CELL)}"
        )
    if forecast_id(report) != report.report_id:
        return ForecastFile(folder, None, f"{visible(path, CELL)} was changed after it was written: it is not shown")
    return ForecastFile(folder, report)
