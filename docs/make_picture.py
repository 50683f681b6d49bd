"""Takes docs/results/leaderboard.png, from docs/results/leaderboard.html: a chart of one of its comparisons.

python docs/make_picture.py [CHROMIUM]

It needs `pip install playwright` and a Chromium, by default the one on the PATH.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SIZE = {"width": 1000, "height": 1400}  # CSS pixels
HEADING = "CIFAR-10, local poolings in a network trained from scratch"


def main() -> None:
    """Opens the page, shows the comparison, and takes the chart of its accuracies."""
    from playwright.sync_api import sync_playwright

    browser = sys.argv[1] if len(sys.argv) > 1 else shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium on the PATH: name one")
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(viewport=SIZE)
        page.goto((RESULTS / "leaderboard.html").as_uri())
        page.get_by_role("link", name=HEADING, exact=True).click()
        page.add_style_tag(content="nav { display: none }")  # it stays in view, over what is taken
        article = page.locator("article:not([hidden])")
        article.locator("figure[data-chart$=accuracy]").screenshot(path=str(RESULTS / "leaderboard.png"))
        opened.close()


if __name__ == "__main__":
    main()
