"""The script that Streamlit runs.

It lies in a folder of its own: beside a folder ``pages`` Streamlit would list the pages by its own rules, without the
global bar, until the first run of :mod:`dashboards.app` tells it otherwise.
"""

from dashboards.app import main

main()
