"""Streamlit's own command line, deaf to all settings files but the dashboard's own.

Those of a user, or of the folder that the dashboard is started in, may name a theme to be fetched from elsewhere, or a
file of secrets. What the dashboard wants set it says with flags, or in the file beside this one.
"""

import http.client
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from streamlit import config
from streamlit.web.cli import main

from dashboards.serving import ADDRESS

OWN: Final = Path(__file__).parent / ".streamlit"


def own_files(file_name: str) -> list[str]:
    """Where settings, or secrets, are looked for: in the dashboard's own settings, which hold no secrets."""
    return [str(OWN / file_name)]


def answered(url: str, listening: str, say: Callable[[str], object]) -> None:
    """Say under which address the dashboard is read, once it answers there: before, a browser would be refused.

    ``listening``: the address of this machine that it listens at; ``url`` may hold another name for it.
    """
    location = urlsplit(url)
    while True:
        connection = http.client.HTTPConnection(listening, location.port, timeout=5)
        try:
            connection.request("GET", "/_stcore/health", headers={"Host": location.netloc})
            connection.getresponse()
            break
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    say(f"the dashboard answers at {url} (Ctrl-C ends it)\n")


if __name__ == "__main__":
    if url := os.environ.get(ADDRESS):
        place = sys.argv[sys.argv.index("--server.address") + 1]
        threading.Thread(target=answered, args=(url, place, sys.stderr.write), daemon=True).start()
    config.get_config_files = own_files
    main(prog_name="streamlit")
