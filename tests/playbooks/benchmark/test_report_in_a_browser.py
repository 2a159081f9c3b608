"""What a report looks like in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.benchmark.records import record
from tests.unit.benchmark.test_report import KILLED, rendered, section

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (scripts/install_system_packages.sh)")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    broken = section(record("glm5_coding", broken=KILLED))
    page, _markdown = rendered(section(record()), section(record("concurrency_sweep")), broken)
    # What the page measures of itself once it is laid out; the page has no script of its own.
    probe = """<script>addEventListener("load", () => {
      const wide = [...document.querySelectorAll("svg, .tiles, h1, p")].filter(
        e => !e.closest(".wide") && e.getBoundingClientRect().right > innerWidth + 1).length;
      const flat = [...document.querySelectorAll("main > section > figure > svg")].filter(
        e => e.getBoundingClientRect().height < 60).length;
      const scroll = document.documentElement.scrollWidth > innerWidth + 1;
      const charts = document.querySelectorAll("figure svg").length;
      document.body.dataset.found = `wide ${wide}, flat ${flat}, scroll ${scroll}, charts ${charts}`;
    });</script></body>"""
    file = tmp_path / "report.html"
    file.write_text(page.replace("</body>", probe), encoding="utf-8")
    network = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"]
    for size in ("1200,900", "500,900"):
        shown = browse([*network, f"--window-size={size}", "--dump-dom", file.as_uri()])
        assert re.findall(r'data-found="([^"]*)"', shown) == ["wide 0, flat 0, scroll false, charts 5"], size
    picture = tmp_path / "page.png"
    browse([*network, "--window-size=1200,3000", f"--screenshot={picture}", file.as_uri()])
    image = Image.open(picture).convert("RGB")
    colours = {colour: count for count, colour in image.getcolors(maxcolors=1 << 20)}
    assert image.size == (1200, 3000)
    assert colours[(255, 255, 255)] < 0.97 * 1200 * 3000, "an empty page"
    assert colours.get((0, 114, 178), 0) > 500, "our bar and our curve are drawn in our colour"


def browse(arguments: list[str]) -> str:
    done = subprocess.run([str(CHROMIUM), *FLAGS, *arguments], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
