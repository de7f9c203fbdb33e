"""Pages as Debian's Chromium shows them, without network: what it measures of them, and what they look like."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

# The page runs in a frame of the width that is asked for: windows cannot be narrower than 500 pixels.
_PROBE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll")
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + "." + e.className);
  const images = [...document.images];
  const look = getComputedStyle(document.body);
  parent.postMessage({width: innerWidth, scroll: document.documentElement.scrollWidth, wide: wide,
    height: document.documentElement.scrollHeight, images: images.length,
    broken: images.filter(i => !(i.complete && i.naturalWidth)).length,
    unnamed: images.filter(i => !i.alt.trim()).length, headings: document.querySelectorAll("h1, h2").length,
    dark: matchMedia("(prefers-color-scheme: dark)").matches, ink: look.color, page: look.backgroundColor,
    shown: images.map(i => i.currentSrc.length),
    requests: performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:"))}, "*");
});</script>"""
_FRAME = """<!DOCTYPE html><body style="margin:0">
<iframe src="page.html" style="border:0;width:{width}px;height:{height}px"></iframe>
<script>onmessage = m => document.body.setAttribute("data-found", JSON.stringify(m.data))</script>"""


def chromium() -> str:
    """Path of the browser; without one the test is skipped, or fails where FLUVIAL_REQUIRE_BROWSER is set."""
    found = shutil.which("chromium")
    if found is None and not os.environ.get("FLUVIAL_REQUIRE_BROWSER"):
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    assert found is not None, "FLUVIAL_REQUIRE_BROWSER is set and chromium is not installed"
    return found


def look_at(
    page: Path, workshop: Path, *, width: int, dark: bool, height: int = 900, screenshot: Path | None = None
) -> dict[str, Any]:
    """Opens a page at a width in pixels and says what the browser made of it.

    Args:
        page: The file.
        workshop: An empty folder.
        width: Width of the window.
        dark: Whether the reader prefers dark pages.
        height: Height of the window.
        screenshot: Where to write a picture of it.
    """
    workshop.mkdir(parents=True, exist_ok=True)
    text = page.read_text(encoding="utf-8")
    assert text.count("</body>") == 1
    (workshop / "page.html").write_text(text.replace("</body>", _PROBE + "</body>"), encoding="utf-8")
    (workshop / "frame.html").write_text(_FRAME.format(width=width, height=height), encoding="utf-8")
    command = [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--allow-file-access-from-files", f"--window-size={max(width, 500)},{height}"]
    command += [f"--user-data-dir={workshop / 'profile'}", "--virtual-time-budget=4000"]
    command += ["--proxy-server=127.0.0.1:9"]  # nothing can be fetched
    command += ["--force-dark-mode"] if dark else []
    url = (workshop / "frame.html").as_uri()
    run = subprocess.run([*command, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-found="([^"]*)"', run.stdout)
    assert found, run.stderr[-2000:]
    if screenshot is not None:
        subprocess.run([*command, f"--screenshot={screenshot}", url], capture_output=True, timeout=120, check=True)
    values: dict[str, Any] = json.loads(unescape(found[1]))
    return values
