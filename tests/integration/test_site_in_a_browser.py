"""No page of the site is wider than its window: text and tables on a phone, code on a laptop.

One page with a frame loads all others in turn and measures them, in a headless Chromium; without one this is skipped.
"""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE, LAPTOP = 390, 1280
MEASURE = """<!DOCTYPE html><iframe></iframe><pre></pre><script>
const frame = document.querySelector("iframe"), found = [];
const loaded = (page) => new Promise((done) => { frame.onload = done; frame.src = page; });
(async () => {
  for (const width of WIDTHS) {
    frame.width = width;
    frame.height = 900;
    for (const page of PAGES) {
      await loaded(page);
      const root = frame.contentDocument.documentElement;
      const wide = [...root.querySelectorAll("article pre")].filter((one) => one.scrollWidth > one.clientWidth + 1);
      found.push({page, width, text: root.innerText.length, scroll: root.scrollWidth, wide: wide.map(
        (one) => one.textContent.split("\\n").sort((a, b) => b.length - a.length)[0])});
    }
  }
  document.querySelector("pre").textContent = JSON.stringify(found);
})();
</script>"""


def measured(folder: Path, pages: list[str]) -> list[dict[str, Any]]:
    """Widths of pages in a folder, as a browser lays them out."""
    script = MEASURE.replace("WIDTHS", json.dumps([PHONE, LAPTOP])).replace("PAGES", json.dumps(pages))
    (folder / "measure.html").write_text(script)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    options += ["--virtual-time-budget=600000", f"--user-data-dir={folder / '.browser'}", "--dump-dom"]
    done = subprocess.run(
        [str(CHROMIUM), *options, (folder / "measure.html").as_uri()], capture_output=True, text=True, check=True
    )
    result = re.search(r"<pre>(.+?)</pre>", done.stdout, re.S)
    assert result, done.stdout[-2000:]
    found: list[dict[str, Any]] = json.loads(html.unescape(result[1]))
    return found


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_measurement_sees(tmp_path: Path) -> None:
    (tmp_path / "wide.html").write_text("<article><p style='width:1000px'>a</p><pre>" + 999 * "b" + "</pre></article>")
    phone, laptop = measured(tmp_path, ["wide.html"])
    assert phone["scroll"] > PHONE
    assert [len(line) for line in laptop["wide"]] in ([999], [])
    assert phone["scroll"] >= 1000


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_no_page_is_wider_than_its_window(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-b", "html", "-d", str(tmp_path / "trees")]
    subprocess.run([*command, str(DOCS), str(site)], check=True, capture_output=True)
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    found = measured(site, pages)
    assert len(found) == 2 * len(pages)
    assert min(one["text"] for one in found) > 0
    assert [(one["page"], one["scroll"]) for one in found if one["scroll"] > one["width"]] == []
    assert [(one["page"], one["wide"]) for one in found if one["width"] == LAPTOP and one["wide"]] == []
