"""What do I take with me?"""

import streamlit as st

from audit.render import APPENDIX, letter, report_sections
from audit.schema import Report
from audit.wording import NAME, size, visible
from dashboards import bar, export, show, states

ORDER = 100


@st.cache_data(show_spinner="Writing the report…", max_entries=12)
def written(_report: Report, label: str, report_id: str) -> bytes:
    """The report in one form, written once."""
    return export.FORMATS[label].write(_report)


view = bar.current()
report = states.report_or_stop(view)
assert view.run is not None
left, right = st.columns([2, 3])
form = left.selectbox("Format", list(export.FORMATS), key="format", bind="query-params")
chosen = export.FORMATS[form or next(iter(export.FORMATS))]
data = written(report, chosen.label, report.report_id)
with right:
    show.text(f"{chosen.about} About {size(len(data))}.")
st.download_button(f"Download {chosen.label}", data, f"{report.report_id}{chosen.ending}", chosen.mime, type="primary",
                   key="download", on_click="ignore")  # fmt: skip
if report.masked:
    show.note("What it quotes of the data is masked. A copy with the texts in clear, which warns of them, is made by:")
    show.command(f"residua report {view.vault.root / view.run.name} --unmask -o unmasked.html")
parts = report_sections(report)
body = sum(not section.appendix for section in parts)
for place, section in enumerate(parts):
    number = letter(place - body) if section.appendix else place + 1
    behind = f"{APPENDIX} " if section.appendix else ""
    show.markup(f'<h2 id="{section.id}">{behind}{number} {section.title}</h2>')
    show.blocks(section.blocks)
show.note(f"End of report {visible(report.report_id, NAME)}")
