"""A server of one synthetic CT exam that speaks the workstation's contract: for development and measurement.

Answers as app/web does (URLs, headers, errors), keeps saves in memory, knows no accounts. `down` makes it refuse
everything with 503, as a proxy does while the server is away.
"""

from __future__ import annotations

import gzip
import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from jinja2 import Environment, FileSystemLoader

from app.web.front import HEADERS

WEB = Path(__file__).parents[1] / "app" / "web"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".mjs": "text/javascript"}


def synthetic(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A body with two organs, int16 Hounsfield units, and a draft with two structures; (i, j, k), Fortran order."""
    rng = np.random.default_rng(7)
    i, j = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    image = np.empty(shape, np.int16, order="F")
    draft = np.zeros(shape, np.uint8, order="F")
    body = (i / 0.85) ** 2 + (j / 0.62) ** 2 < 1
    noise = rng.normal(0, 12, shape[:2]).astype(np.int16)
    for k in range(shape[2]):
        z = 2 * k / shape[2] - 1
        organ = ((i + 0.35) / 0.32) ** 2 + ((j - 0.05) / 0.36) ** 2 + (z / 0.5) ** 2 < 1
        second = ((i - 0.4) / 0.16) ** 2 + ((j + 0.05) / 0.13) ** 2 + ((z - 0.1) / 0.3) ** 2 < 1
        spine = (i / 0.1) ** 2 + ((j - 0.38) / 0.12) ** 2 < 1
        plane = np.where(body, 10, -1000).astype(np.int16)
        plane[organ], plane[second], plane[spine] = 105, 60, 420
        image[:, :, k] = plane + np.roll(noise, k * 7, axis=0)
        draft[:, :, k][organ] = 1
        draft[:, :, k][second] = 2
    return image, draft


def header(shape: tuple[int, int, int], affine: np.ndarray) -> bytes:
    """The 352 bytes before the values of an int16 NIfTI-1 file."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 4, 16)
    struct.pack_into("<8f", head, 76, 1, *np.linalg.norm(affine[:3, :3], axis=0), 0, 0, 0, 0)
    struct.pack_into("<3f", head, 108, 352, 1, 0)
    struct.pack_into("<2h", head, 252, 0, 1)
    struct.pack_into("<12f", head, 280, *affine[:3].ravel())
    head[344:348] = b"n+1\0"
    return bytes(head)


class StandIn:
    """One exam under /work/a1.

    Attributes
    ----------
    saves : list of (array, query) in the order they came
    times : list of batches
    submitted : body of the submission, or None
    """

    def __init__(self, image: np.ndarray, draft: np.ndarray | None, affine: np.ndarray):
        self.image, self.affine = image, affine
        self.draft = None if draft is None else gzip.compress(draft.tobytes(order="F"), 1)
        self.saves: list[bytes] = []
        self.times: list[dict[str, Any]] = []
        self.submitted: dict[str, Any] | None = None
        self.down = False
        self.holder: str | None = None
        stand_in = self

        class Handler(_Handler):
            exam = stand_in

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def info(self) -> dict[str, Any]:
        """GET /api/work/a1."""
        depth = self.image.shape[2]
        bumps = [abs(np.sin(k / depth * 9)) ** 3 for k in range(depth)]
        return {
            "assignment_id": "a1", "exam_id": "ex-51d0c2a9", "round": 2, "purpose": "training", "modality": "CT",
            "mode": "assisted" if self.draft else "from_scratch", "shape": list(self.image.shape),
            "spacing": [float(x) for x in np.linalg.norm(self.affine[:3, :3], axis=0)],
            "affine": self.affine.tolist(), "dtype": "int16", "intensity": {"low": -1000, "high": 500},
            "structures": [
                {"name": "liver", "value": 1, "kind": "organ", "colour": "#e69f00",
                 "protocol": "The whole organ with its vessels inside. Leave out the gall bladder and the vena cava."},
                {"name": "left_kidney", "value": 2, "kind": "organ", "colour": "#56b4e9",
                 "protocol": "Parenchyma and pelvis; no fat of the hilum."},
            ],
            "draft": self.draft is not None,
            "uncertainty": {"axis": 2, "exam": bumps, "structures": {}} if self.draft else None,
            "windows": [{"name": "soft tissue", "low": -160, "high": 240}, {"name": "lung", "low": -1350, "high": 150},
                        {"name": "bone", "low": -500, "high": 1300}],
            "reasons": [{"code": "draft_unusable", "words": "The draft is of no use.", "no_label": False},
                        {"code": "poor_image", "words": "The image is too poor to segment.", "no_label": True}],
            "autosave": {"number": len(self.saves), "at": "2026-11-21T09:00:00Z"} if self.saves else None,
            "tab": {"mine": True, "held_by_other": False},
            "lease": {"expires_at": "2026-11-28T17:00:00Z", "extensions_left": 2, "expired": False},
            "time": {"heartbeat_seconds": 15, "idle_after_seconds": 60, "away_after_seconds": 300},
            "returned": None, "offers": [],
            "notes": ["A small planned share of the drafts in this project is wrong on purpose."] if self.draft else [],
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    exam: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _send(self, status: int, kind: str, *parts: bytes | memoryview) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(sum(len(part) for part in parts)))
        self.end_headers()
        for part in parts:
            for start in range(0, len(part), 1 << 20):
                self.wfile.write(part[start : start + (1 << 20)])

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _refuse(self, status: int, code: str) -> None:
        self._json({"error": {"code": code, "what": code, "do": "", "retry": status >= 500}}, status)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        exam, url = self.exam, urlsplit(self.path)
        query = {name: value[0] for name, value in parse_qs(url.query).items()}
        if url.path.startswith("/static/"):
            file = WEB / url.path.lstrip("/")
            if not file.is_file():
                return self._refuse(404, "none")
            return self._send(200, TYPES.get(file.suffix, "application/octet-stream"), file.read_bytes())
        if exam.down:
            return self._refuse(503, "down")
        if url.path == "/work/a1":
            page = Environment(loader=FileSystemLoader(WEB / "templates"), autoescape=True).get_template("work.html")
            return self._send(200, "text/html; charset=utf-8", page.render(kind="work", identity="a1").encode())
        if url.path == "/api/me":
            return self._json({"account_id": "ac-0123456789ab", "name": "Reader", "roles": ["reader"], "csrf": "x"})
        if url.path == "/api/work":
            return self._json([])
        if url.path == "/api/work/a1":
            return self._json(exam.info())
        if url.path == "/api/work/a1/image":
            values = exam.image.reshape(-1, order="F").view(np.uint8).data
            return self._send(200, "application/octet-stream", header(exam.image.shape, exam.affine), values)
        if url.path == "/api/work/a1/slice":
            # Not `take`: on a Fortran-ordered array it copies the whole volume first.
            place: list[Any] = [slice(None)] * 3
            place[int(query["axis"])] = int(query["index"])
            values = exam.image[tuple(place)]
            return self._send(200, "application/octet-stream", values.tobytes(order="F"))
        if url.path == "/api/work/a1/draft" and exam.draft:
            return self._send(200, "application/gzip", exam.draft)
        if url.path == "/api/work/a1/mask" and exam.saves:
            return self._send(200, "application/gzip", exam.saves[-1])
        return self._refuse(404, "none")

    def do_PUT(self) -> None:
        exam, body = self.exam, self._body()
        query = {name: value[0] for name, value in parse_qs(urlsplit(self.path).query).items()}
        if exam.down:
            return self._refuse(503, "down")
        if int(query["base"]) != len(exam.saves):
            return self._refuse(409, "work.stale")
        exam.saves.append(body)
        return self._json({"number": len(exam.saves), "sha256": "", "at": ""})

    def do_POST(self) -> None:
        exam, body = self.exam, self._body()
        if exam.down:
            return self._refuse(503, "down")
        content = json.loads(body or b"{}")
        last = urlsplit(self.path).path.rpartition("/")[2]
        if last == "time":
            exam.times.append(content)
            return self._json({"received": content["number"]})
        if last == "tab":
            return self._json({"mine": True})
        if last == "submit":
            exam.submitted = content
            return self._json({"state": "returned", "minutes": {}})
        return self._refuse(404, "none")
