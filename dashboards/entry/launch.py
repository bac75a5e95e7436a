"""Streamlit's own command line, deaf to all settings files but the dashboard's own.

Those of a user, or of the folder that the dashboard is started in, may name a theme to be fetched from elsewhere, or a
file of secrets. What the dashboard wants set it says with flags, or in the file beside this one.
"""

from pathlib import Path
from typing import Final

from streamlit import config
from streamlit.web.cli import main

OWN: Final = Path(__file__).parent / ".streamlit"


def own_files(file_name: str) -> list[str]:
    """Where settings, or secrets, are looked for: in the dashboard's own settings, which hold no secrets."""
    return [str(OWN / file_name)]


if __name__ == "__main__":
    config.get_config_files = own_files
    main(prog_name="streamlit")
