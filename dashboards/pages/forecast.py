"""How hard will it be to make a model forget?"""

import plotly.graph_objects as go
import streamlit as st

from audit.render import Drawing, dot, forecast_markdown, forecast_sections, grid_of, label, pen, sketch
from audit.wording import visible
from dashboards import bar, forecasts, show, states

ORDER = 87
WHOLE_FOLDER = True
DRAWN = 40


def ranks(report: forecasts.ForecastReport) -> Drawing:
    """Groups by how hard they will be, with their 90 % intervals."""
    groups = list(reversed(report.groups[:DRAWN]))
    names = [label(group.name) for group in groups]
    figure = sketch(90 + 22 * len(groups), xaxis={"range": [0, 1], "title": "rank in this forget set (1 hardest)"})
    figure.add_trace(
        go.Scatter(
            x=[g.rank for g in groups], y=names, mode="markers", marker=dot("suspect"), name="group",
            error_x={
                "type": "data", "symmetric": False, "array": [g.interval.hi - g.rank for g in groups],
                "arrayminus": [g.rank - g.interval.lo for g in groups], "color": pen("suspect")["color"], "width": 3,
            },
        )
    )  # fmt: skip
    rows = [[visible(g.name), f"{g.rank:.2f}", f"{g.interval.lo:.2f}", f"{g.interval.hi:.2f}"] for g in report.groups]
    data = grid_of("Groups, hardest first", ("Group", "Rank", "90 % from", "to"), rows)
    alt = f"{len(groups)} groups by how hard they will be to forget, 0 easiest, 1 hardest, with 90 % intervals"
    return Drawing("forecast-groups", figure, alt, "A rank says which is harder, not how long it takes.", data)


view = bar.current()
folders = forecasts.folders(view.vault)
if not folders:
    states.nothing(
        "No forecasts here", "A forecast ranks what is to be forgotten before anything is unlearned. To make one:"
    )
    show.command("residua forecast case.toml -o runs/forecast")
    st.stop()
chosen = st.selectbox("Forecast", folders, key="forecast", bind="query-params", format_func=visible)
forecast = forecasts.read(view.vault, chosen or folders[0])
if forecast.report is None:
    states.nothing("This forecast cannot be shown", forecast.reason)
    st.stop()
report = forecast.report
answer, _, *rest = forecast_sections(report)
show.blocks(answer.blocks)
show.chart(ranks(report))
st.download_button("Download Markdown", forecast_markdown(report), f"{report.report_id}.md", "text/markdown", key="md",
                   on_click="ignore")  # fmt: skip
for section in rest:
    show.markup(f'<h2 id="{section.id}">{section.title}</h2>')
    show.blocks(section.blocks)
show.note(f"End of forecast {visible(report.report_id)}")
