"""Report to one HTML file whose figures answer to a pointer: the same page, with plotly inline, once.

Nothing is fetched: the library stands in the file, and the page may run only what stands in it. The static page is the
document; this one is for looking closer.
"""

from collections.abc import Iterator

from audit.render.figures.heat_figures import heat_maps
from audit.render.figures.report_figures import Drawing, positions, profiles
from audit.render.formats.html import Live, html
from audit.render.sections.findings import FAMILIES, figure_key
from audit.render.sections.listings import map_keys
from audit.schema import Report


def interactive(report: Report, prior_odds: float | None = None) -> str:
    """The page with live figures: the same bytes for the same report and library."""
    from plotly.offline import get_plotlyjs

    figures = {key: _live(drawing, place) for place, (key, drawing) in enumerate(_drawings(report), 1)}
    return html(report, prior_odds, Live(get_plotlyjs(), figures))


def _drawings(report: Report) -> Iterator[tuple[str, Drawing]]:
    """Every figure of the findings by the key that its static twin has."""
    for kind, _ in FAMILIES:
        rows = [e for e in report.evidence if e.measurement.kind == kind]
        placed = positions(report, rows) if rows else None
        if placed is not None:
            yield figure_key(kind), placed
        for e in rows:
            for place, drawing in enumerate(profiles(e.measurement)):
                yield figure_key(kind, e.measurement, place), drawing
            yield from zip(map_keys(e.measurement), heat_maps(e.measurement), strict=True)


def _live(drawing: Drawing, place: int) -> str:
    """A figure as a fragment under an id of its own, for ids of plotly's are random."""
    fragment: str = drawing.figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"live-{place}",
        config={"displaylogo": False, "responsive": True},
    )
    return fragment
