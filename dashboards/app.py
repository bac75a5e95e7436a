"""What every run of the dashboard does: list the pages, draw the global bar, run the page that was asked for."""

import streamlit as st

from dashboards import bar, catalogue, show, states
from dashboards.guard import Guard


def tab_title(leaf: catalogue.Leaf, view: bar.View) -> str:
    """What the browser calls this page: its name and the checkpoint that it is about."""
    about = "" if view.run is None else f" of {bar.name_of(view.run)}"
    return f"{leaf.title}{about} · Residua"


def main() -> None:
    """One run of the script."""
    leaves = catalogue.leaves()
    st.set_page_config(page_title="Residua", layout="wide", initial_sidebar_state="auto")
    show.style([leaf.section for leaf in leaves])
    pages = {
        leaf.name: st.Page(leaf.path, title=leaf.title, url_path=leaf.name, default=leaf is leaves[0])
        for leaf in leaves
    }
    chosen = st.navigation(list(pages.values()), expanded=True)
    if (target := st.session_state.pop(bar.TARGET, None)) is not None:
        st.switch_page(pages[target.page], query_params=target.state)
    leaf = next(leaf for leaf in leaves if pages[leaf.name] is chosen)
    with Guard():
        view = st.session_state[bar.VIEW] = bar.whole() if leaf.whole else bar.draw()
        st.set_page_config(page_title=tab_title(leaf, view))
        bar.news(view)
        st.title(leaf.title, anchor=False)
        show.markup(f'<p class="r-question">{leaf.question}</p>')
        if view.run is not None and view.run.report is not None:
            states.ribbons(view.run.report)
        chosen.run()
