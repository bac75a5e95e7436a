"""What every run of the dashboard does: list the pages, draw the global bar, run the page that was asked for."""

import streamlit as st

from dashboards import bar, catalogue, show, states
from dashboards.guard import Guard


def main() -> None:
    """One run of the script."""
    st.set_page_config(page_title="Residua", layout="wide", initial_sidebar_state="auto")
    show.style()
    leaves = catalogue.leaves()
    pages = {
        leaf.name: st.Page(leaf.path, title=leaf.title, url_path=leaf.name, default=leaf is leaves[0])
        for leaf in leaves
    }
    chosen = st.navigation(list(pages.values()))
    if (target := st.session_state.pop(bar.TARGET, None)) is not None:
        st.switch_page(pages[target.page], query_params=target.state)
    leaf = next(leaf for leaf in leaves if pages[leaf.name] is chosen)
    with Guard():
        view = st.session_state[bar.VIEW] = bar.draw()
        bar.news(view)
        st.title(leaf.title, anchor=False)
        show.markup(f'<p class="r-question">{leaf.question}</p>')
        if view.run is not None and view.run.report is not None:
            states.ribbons(view.run.report)
        chosen.run()
