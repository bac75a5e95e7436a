"""What do I take with me?"""

import streamlit as st

from audit.render.sections import sections
from audit.render.wording import NAME, size, visible
from dashboards import bar, export, show, states

ORDER = 100

view = bar.current()
report = states.report_or_stop(view)
left, right = st.columns([2, 3])
form = left.selectbox("Format", list(export.FORMATS), key="format", bind="query-params")
chosen = export.FORMATS[form or next(iter(export.FORMATS))]
data = export.written(report, chosen)
with right:
    show.text(f"{chosen.about} About {size(len(data))}.")
st.download_button(f"Download {chosen.label}", data, f"{report.report_id}{chosen.ending}", chosen.mime, type="primary",
                   key="download", on_click="ignore")  # fmt: skip
show.note("The report holds aggregates and none of the texts of the data; those stay in the tables beside it.")
for number, section in enumerate(sections(report), 1):
    show.markup(f'<h2 id="{section.id}">{number} {section.title}</h2>')
    show.blocks(section.blocks)
show.note(f"End of report {visible(report.report_id, NAME)}")
