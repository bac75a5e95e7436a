"""Streamlit's own command line, deaf to settings files.

Those of a user, or of the folder that the dashboard is started in, may name a theme to be fetched from elsewhere, or a
file of secrets. What the dashboard wants set it says with flags.
"""

from streamlit import config
from streamlit.web.cli import main


def no_files(file_name: str) -> list[str]:
    """Where settings, or secrets, are looked for: nowhere."""
    return []


if __name__ == "__main__":
    config.get_config_files = no_files
    main(prog_name="streamlit")
