"""Take screenshots of the widgets and of a page of a built book: `python tests/screenshots.py SITE`.

SITE is the output folder of `make book` for a run on planted data, whose images this project draws itself. The
screenshots go to figures/widgets/, at most 200 kB each.
"""

import io
import shutil
import sys
from pathlib import Path

from browser import FLAGS, ROOT
from PIL import Image

TARGET, LIMIT = ROOT / "figures" / "widgets", 200_000
WIDTH = 1180  # of the window, without side bars
SHOWN = {  # screenshot: page, selector, height in pixels
    "inspector": ("notebooks/07_codebook_inspector.html", ".bb-inspector", 835),
    "explorer": ("notebooks/04_attention_reweighting.html", ".bb-explorer", 785),
    "playground": ("notebooks/04_attention_reweighting.html", ".bb-playground", 757),
    "book": ("notebooks/02_codebook_training.html", "", 900),
}
BARE = ".bd-sidebar, .bd-header-article, .skip-link, #pst-skip-link { display: none !important }"


def small(png: bytes) -> bytes:
    """Compress an image; use 256 colours if it is too large otherwise."""
    for colours in (None, 256):
        picture, target = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
        if colours:
            picture = picture.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        picture.save(target, "PNG", optimize=True)
        if target.tell() < LIMIT:
            break
    return target.getvalue()


def shot(browser: object, site: Path, page: str, selector: str, height: int) -> bytes:
    """Screenshot of a widget without its surroundings, or of the top of a page."""
    window = browser.new_page(viewport={"width": WIDTH if selector else 1400, "height": 4000 if selector else height})
    window.goto((site / page).as_uri())
    window.wait_for_function("() => !document.querySelector('.bb-undrawn:last-child')")
    if selector:
        window.add_style_tag(content=BARE)
        window.locator(selector).scroll_into_view_if_needed()
    window.wait_for_timeout(3000)  # points fade in
    if not selector:
        return window.screenshot()
    box = window.locator(selector).bounding_box()
    part = {"x": box["x"] - 6, "y": box["y"] - 6, "width": box["width"] + 12, "height": min(height, box["height"] + 12)}
    return window.screenshot(clip=part)


def main(site: Path) -> int:
    """Take all screenshots of a site."""
    from playwright.sync_api import sync_playwright

    TARGET.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, (page, selector, height) in SHOWN.items():
            picture = small(shot(browser, site.resolve(), page, selector, height))
            (TARGET / f"{name}.png").write_bytes(picture)
            print(f"figures/widgets/{name}.png: {len(picture):,} bytes")
            assert len(picture) < LIMIT
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
