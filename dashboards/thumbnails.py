"""Small pictures of a run's images, from the data files that its report states; nothing of them is kept in the run."""

from collections.abc import Mapping
from pathlib import Path

from audit.case import asked_pictures, stored_pictures
from audit.judging import replicates_of
from audit.runs import thumbnail
from audit.schema import AuditError, Report, Table
from dashboards.vault import Vault

HIDDEN = "‹masked, an image›"
NOT_FOUND = (
    "The images are not shown: the data files that the report states are neither where the dashboard was started nor "
    "beside its runs. Start it where case.toml lies."
)


def of_images(report: Report) -> bool:
    """Are the items of this run images alone?"""
    return replicates_of(report.evidence).of_images


def beside(report: Report, table: Table) -> bool:
    """Do the items of this table ask in words about an image?"""
    quoted = (x for excerpts in report.excerpts if excerpts.table == table.path for x in excerpts.items)
    return any(x.picture is not None for x in quoted)


def thumbnails(vault: Vault, report: Report) -> Mapping[str, str]:
    """Addresses of small pictures by item; none where the files that hash as stated are not found.

    A run may come from anybody, so that no path of it leads out of the folders that are looked in: that of the runs,
    the one beside it, and the one in which the dashboard was started.
    """
    roots = (Path.cwd(), vault.root, vault.root.resolve().parent)
    case, hashes = report.plan.case, report.plan.data_sha256
    try:
        pixels = (
            stored_pictures(case.data, hashes, roots, inside=True)
            if of_images(report)
            else asked_pictures(case, hashes, roots, inside=True)
        )
    except AuditError:
        return {}
    return {item: thumbnail(image) for item, image in pixels.items()}
