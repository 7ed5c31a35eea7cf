"""Takes chosen screenshots of the last test run (artefacts/screenshots) into docs/pictures, made small.

Run after `pytest tests/web`: python infra/pictures.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parents[1]
SHOTS, PICTURES = HERE / "artefacts" / "screenshots", HERE / "docs" / "pictures"
# Screenshot, picture.
CHOSEN = {
    "work-list-dark": "work-list",
    "workstation-axial": "workstation",
    "workstation-offline": "offline",
    "ops-light": "operations",
    "workstation-review": "second-look",
    "workstation-adjudication-where-the-readings-differ": "adjudication",
    "decision-light": "decision",
    "sign-in-dark": "sign-in",
    "me-dark": "my-page",
    "reviews-dark": "second-looks",
    "adjudications-dark": "disagreements",
}
WIDTH, COLOURS, MOST_BYTES = 1200, 112, 150_000


def main() -> int:
    """Copy what is there; returns 1 where a screenshot is missing or a picture too large."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for shot, name in CHOSEN.items():
        source, target = SHOTS / f"{shot}.png", PICTURES / f"{name}.png"
        if not source.exists():
            print(f"{shot}.png is missing: run the tests in tests/web")
            wrong = 1
            continue
        image = Image.open(source).convert("RGB")
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
        image.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
        size = target.stat().st_size
        print(f"{target.relative_to(HERE)}: {size // 1000} kB")
        if size > MOST_BYTES:
            print(f"{name}.png is larger than {MOST_BYTES // 1000} kB: choose fewer colours")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
