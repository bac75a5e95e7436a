"""Take the README's pictures: ``residua demo``, then ``python -m studies.screenshots.take runs``.

Pages of a headless Chromium (``chromium``, or ``CHROME_PATH``), small enough that each picture stays under 200 KB.
"""

import argparse
import importlib
import os
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from studies.speed.dashboard import DRAWN, FLAGS, served

HERE: Final = Path(__file__).parent


class Shot(NamedTuple):
    """A picture: the name of its file, the address below the dashboard's, light or dark, and its height in pixels."""

    name: str
    address: str
    scheme: str
    height: int


SHOTS: Final = (
    Shot("verdict", "verdict?run=refusal", "light", 1600),
    Shot("where", "where?run=refusal&depth=reverse%20patch%3A%20depth%20profile%20all", "dark", 1340),
    Shot("evidence", "evidence?run=refusal", "light", 900),
)


def take(runs: Path, out: Path) -> list[Path]:
    """Every picture of :data:`SHOTS`, of a folder that ``residua demo`` wrote."""
    driver, taken = importlib.import_module("playwright.sync_api"), list[Path]()
    chromium = os.environ.get("CHROME_PATH") or shutil.which("chromium") or ""
    with served(runs) as (address, _), driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        for shot in SHOTS:
            size = {"width": 1240, "height": shot.height}
            page = browser.new_page(color_scheme=shot.scheme, viewport=size, reduced_motion="reduce")
            page.goto(f"{address}/{shot.address}")
            page.wait_for_selector(".js-plotly-plot .main-svg", timeout=120_000)
            page.wait_for_function(DRAWN)
            page.wait_for_timeout(1500)  # charts settle after their script is done
            path = out / f"{shot.name}.png"
            page.screenshot(path=path)
            _shrink(path)
            taken.append(path)
            page.close()
        browser.close()
    return taken


def _shrink(path: Path) -> None:
    """256 colours, chosen so that the rare ones stay: the roles' own. A third of the bytes."""
    image = importlib.import_module("PIL.Image")
    plain = image.open(path).convert("RGB")
    plain.quantize(256, method=image.Quantize.MAXCOVERAGE, dither=image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, help="the folder that `residua demo` wrote")
    parser.add_argument("--out", type=Path, default=HERE, help="where the pictures go (default: here)")
    args = parser.parse_args()
    for path in take(args.runs, args.out):
        print(f"{path} ({path.stat().st_size / 1000:.0f} KB)")


if __name__ == "__main__":
    main()
