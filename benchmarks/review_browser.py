"""What the workstation costs in a real browser (Chromium, software rendering): first slice, volume, strokes, a save.

`python -m benchmarks.review_browser [slices …]`: 512×512×300 and ×600 by default. Against benchmarks/stand_in.py,
which answers from memory: the browser is measured, not the server (that is benchmarks/review_server.py).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stand_in import StandIn, synthetic

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--headless=new",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# From the pointer's event to the end of the frame that shows it.
WATCH = """() => {
  const app = window.workstation;
  window.strokes = [];
  window.longest = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
  }).observe({ type: "longtask" });
  let at = null;
  for (const pane of app.scene.panes) {
    pane.canvas.addEventListener("pointermove", (event) => { if (event.buttons === 1) at ??= event.timeStamp; }, true);
  }
  app.scene.on("painted", () => {
    if (at === null) return;
    window.strokes.push(performance.now() - at);
    at = null;
  });
}"""


def measure(page: Any, exam: StandIn, shots: Path | None = None) -> dict[str, Any]:
    """Open the exam, paint in all three planes, save; times in milliseconds."""
    started = time.monotonic()
    page.goto(f"{exam.url}/work/a1")
    page.wait_for_function("() => window.workstation?.marks.first_slice", timeout=60_000)
    first = page.evaluate("() => new Promise((done) => requestAnimationFrame(() => done(performance.now())))")
    page.evaluate(WATCH)
    page.wait_for_function("() => window.workstation.marks.ready", timeout=120_000)
    loading = page.evaluate("() => window.longest")
    marks = page.evaluate("() => window.workstation.marks")
    if shots:
        page.screenshot(path=str(shots / "opened.png"))
    strokes: dict[str, list[float]] = {}
    page.evaluate("() => { window.longest = 0 }")
    page.keyboard.press("p")
    for plane in ("axial", "coronal", "sagittal"):
        page.evaluate("() => { window.strokes = [] }")
        box = page.locator(f"[data-plane={plane}] canvas").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x - 60, y - 40)
        page.mouse.down()
        for n in range(60):
            page.mouse.move(x - 60 + 2 * n, y - 40 + 25 * np.sin(n / 8))
        page.mouse.up()
        strokes[plane] = page.evaluate("() => window.strokes")
    if shots:
        page.screenshot(path=str(shots / "painted.png"))
    before = time.monotonic()
    page.keyboard.press("Control+s")
    page.wait_for_function("() => window.workstation.save.clean && window.workstation.save.number > 0", timeout=60_000)
    saved = (time.monotonic() - before) * 1000
    # What is on the server is what is on the screen, voxel for voxel.
    page.evaluate(
        "() => crypto.subtle.digest('SHA-256', window.workstation.editor.mask).then((d) => { window.digest = "
        "Array.from(new Uint8Array(d), (b) => b.toString(16).padStart(2, '0')).join('') })"
    )
    page.wait_for_function("() => window.digest")
    sent = hashlib.sha256(gzip.decompress(exam.saves[-1])).hexdigest()
    windows = page.evaluate("""async () => {
      const { scene } = window.workstation;
      const times = [];
      for (let n = 0; n < 20; n++) {
        const t = performance.now();
        scene.setWindow(-160 - n * 5, 240 + n * 5);
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        times.push(performance.now() - t);
      }
      return times;
    }""")
    scroll = page.evaluate("""async () => {
      const { scene } = window.workstation;
      const times = [];
      for (let n = 0; n < 30; n++) {
        const t = performance.now();
        scene.moveTo(scene.cross.map((value, d) => value + (n % 3 === d ? 1 : 0)));
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        times.push(performance.now() - t);
      }
      return times;
    }""")
    return {
        "first_slice_ms": round(first), "image_ms": marks["image"],
        "mask_ms": marks["mask"], "ready_ms": marks["ready"],
        "longest_task_loading_ms": round(loading),
        "longest_task_working_ms": round(page.evaluate("() => window.longest")),
        "stroke_ms": {plane: _spread(values) for plane, values in strokes.items()},
        "window_ms": _spread(windows), "scroll_ms": _spread(scroll),
        "save_ms": round(saved), "save_bytes": len(exam.saves[-1]), "image_bytes": exam.image.nbytes,
        "same_voxels": page.evaluate("() => window.digest") == sent,
        "memory_mb": round(page.evaluate("() => performance.memory.totalJSHeapSize") / 1e6),
        "wall_s": round(time.monotonic() - started, 1),
    }  # fmt: skip


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {"n": 0}
    p50, p95 = np.percentile(values, [50, 95])
    return {"n": len(values), "p50": round(p50, 1), "p95": round(p95, 1), "max": round(max(values), 1)}


def main(arguments: list[str]) -> None:
    """Print one JSON line per exam size."""
    from playwright.sync_api import sync_playwright

    affine = np.diag([-0.8, -0.8, 1.0, 1.0])
    affine[:3, 3] = [204.4, 204.4, 0]
    shots = Path("artefacts/workstation")
    shots.mkdir(parents=True, exist_ok=True)
    for depth in [int(value) for value in arguments] or [300, 600]:
        image, draft = synthetic((512, 512, depth))
        exam = StandIn(image, draft, affine)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1600, "height": 950})
            said: list[str] = []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            try:
                print(
                    json.dumps({"shape": [512, 512, depth], **measure(page, exam, shots), "console": said}), flush=True
                )
            except Exception:
                page.screenshot(path=str(shots / "failed.png"))
                print(said, file=sys.stderr)
                raise
            finally:
                browser.close()
        exam.server.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
