"""Fifty readers at work on one server: `python -m benchmarks.review_server [--readers 50] [--seconds 60]`.

A real `redraft serve` in a process of its own; every reader has an account, signs in, opens a phantom exam (a part of
them one of 512 × 512 × 200 voxels), draws, saves, sends time and hands in, over HTTP. Milliseconds per route, and proof
that nothing was lost: every acknowledged autosave and batch of events is there afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from isal import igzip
from numpy.typing import NDArray

PASSWORD = "readers of a benchmark"
ORDINARY, LARGE = ((256, 256, 96), (1.4, 1.4, 3.0)), ((512, 512, 200), (0.7, 0.7, 1.5))
SAVE_SECONDS, TIME_SECONDS = 5.0, 5.0
BAR_MS = 200.0
PIXELS = ("image", "draft", "mask")  # volumes: their time is their size


@dataclass
class Seen:
    """What the clients measured and were told."""

    ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: list[str] = field(default_factory=list)
    saved: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    batches: list[tuple[str, str, int]] = field(default_factory=list)
    handed_in: dict[str, str] = field(default_factory=dict)  # assignment to the SHA-256 of its mask


def make_project(root: Path, readers: int, large: int) -> dict[str, tuple[int, int, int]]:
    """A project with one assisted exam per reader; returns each login's grid."""
    from redraft import rounds
    from redraft.accounts import directory
    from redraft.create import create_project
    from redraft.digest import sha256_file
    from redraft.ledger import RoundState, move_round
    from redraft.phantom.write import draw_exam
    from redraft.signing import token
    from redraft.volumes import Volume, write_volume
    from tasks.dispatch.contract import Task, TaskStructure
    from tasks.dispatch.packages import make_package

    now = datetime.now(UTC)
    listed = "\n".join(f"    - {{id: reader-{n}, role: radiologist}}" for n in range(1, readers + 1))
    settings = {
        "backend: folder": "backend: review",
        "    - {id: reader-1, role: radiologist}": listed,
        "gate:\n": "web: {sweep_minutes: 0}\n\ngate:\n",
    }
    project = create_project(root, "kidney-ct", now, demo_keys=True, settings=settings)
    number = rounds.begin(project, now, "bench", lambda champion: {})
    grids = {}
    with project.ledger.tx("bench", now) as tx:
        move_round(tx, number, RoundState.AWAITING_ANNOTATION)
        for exam, (shape, spacing) in (("a" * 20, ORDINARY), ("b" * 20, LARGE)):
            anatomy = draw_exam(3, 0, shape, spacing)
            path = f"data/exams/{exam[:2]}/{exam}/image.nii.gz"
            affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
            write_volume(root / path, Volume(anatomy.hu, affine))
            write_volume(root / f"{exam}.draft.nii.gz", Volume(anatomy.labels, affine))
            tx.insert("subject", {"subject_id": exam, "split": "pool", "stratum": "", "drawn_at": now})
            tx.insert(
                "exam",
                {
                    "exam_id": exam, "subject_id": exam, "series_id": exam, "modality": "CT", "shape": list(shape),
                    "spacing": list(spacing), "affine": affine.tolist(), "image_path": path,
                    "image_sha256": sha256_file(root / path), "image_bytes": (root / path).stat().st_size,
                    "header_digest": "0" * 64, "source_kind": "nifti", "admitted_at": now,
                },
            )  # fmt: skip
        for n in range(1, readers + 1):
            if tx.one("reader", reader_id=f"reader-{n}") is None:
                row = {"reader_id": f"reader-{n}", "role": "radiologist", "simulated": False, "added_at": now}
                tx.insert("reader", row)
    structures = tuple(TaskStructure(name=s.name, value=s.value, kind=s.kind) for s in project.config.structures)
    for n in range(1, readers + 1):
        exam = ("b" if n <= large else "a") * 20
        name, reader = f"work-{n:03d}", f"reader-{n}"
        draft = root / f"{exam}.draft.nii.gz"
        image = project.image(exam)
        task = Task(
            assignment_id=name, exam_id=exam, round=number, purpose="training", mode="assisted", reader_id=reader,
            structures=structures, image_sha256=sha256_file(image), draft_sha256=sha256_file(draft),
            token=token(project.checked_keys, name, reader, 1),
        )  # fmt: skip
        digest = make_package(project.work, task, image, draft)
        with project.ledger.tx("bench", now) as tx:
            tx.insert(
                "assignment",
                {
                    "assignment_id": name, "round": number, "exam_id": exam, "reader_id": reader,
                    "purpose": "training", "mode": "assisted", "mode_probability": 1.0, "draft_id": None,
                    "backend": "review", "state": "DISPATCHED", "expected_minutes": 20.0, "dispatched_at": now,
                    "due_at": now + timedelta(days=14), "package_sha256": digest, "attempt": 1,
                },
            )  # fmt: skip
            expires = now + timedelta(hours=72)
            tx.insert("work_lease", {"assignment_id": name, "expires_at": expires, "extensions": 0, "state": "held"})
        directory.add(
            project, reader, name=f"Reader {n}", roles=("reader",), reader_id=reader, password=PASSWORD, now=now
        )
        grids[reader] = LARGE[0] if n <= large else ORDINARY[0]
    project.ledger.engine.dispose()
    return grids


class Reader:
    """One person at one browser."""

    def __init__(self, url: str, login: str, shape: tuple[int, int, int], seen: Seen, seconds: float):
        self.client = httpx.AsyncClient(base_url=url, timeout=60)
        self.login, self.shape, self.seen, self.seconds = login, shape, seen, seconds
        self.rng = random.Random(login)
        self.sitting = f"sitting-{login}"

    async def ask(self, route: str, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """One request, timed from the first byte sent to the last received."""
        start = time.perf_counter()
        answer = await self.client.request(method, path, **kwargs)
        self.seen.ms[route].append(1000 * (time.perf_counter() - start))
        if answer.status_code not in (200, 303):
            self.seen.refused.append(f"{route}: {answer.status_code} {answer.text[:200]}")
        return answer

    async def sign_in(self) -> None:
        """As a browser does."""
        page = await self.client.get("/sign-in")
        fields = dict(re.findall(r'<input type="hidden" name="(csrf|next)" value="([^"]*)"', page.text))
        await self.ask("sign-in", "POST", "/sign-in", data={"login": self.login, "password": PASSWORD, **fields})
        me = (await self.ask("me", "GET", "/api/me")).json()
        self.client.headers["X-CSRF-Token"] = me["csrf"]

    async def work(self) -> None:
        """Open the exam, draw and save for a while, hand in."""
        await asyncio.sleep(self.rng.uniform(0, 10))
        work = (await self.ask("work list", "GET", "/api/work")).json()[0]
        name = work["assignment_id"]
        url = f"/api/work/{name}"
        await self.ask("exam", "GET", url, params={"sitting": self.sitting})
        await self.ask("tab", "POST", f"{url}/tab", json={"sitting": self.sitting})
        await self.ask("slice", "GET", f"{url}/slice", params={"axis": 2, "index": self.shape[2] // 2})
        await self.ask("image", "GET", f"{url}/image")
        drawn = await self.ask("draft", "GET", f"{url}/draft")
        mask = np.frombuffer(gzip.decompress(drawn.content), np.uint8).reshape(self.shape, order="F").copy(order="F")
        sending = asyncio.create_task(self.send_time(name))
        number, end = 0, time.monotonic() + self.seconds
        digest = ""
        while time.monotonic() < end:
            body, digest = await asyncio.to_thread(self.draw, mask)
            answer = await self.ask(
                "save", "PUT", f"{url}/mask", params={"base": number, "sitting": self.sitting}, content=body,
                headers={"X-Redraft-Reading": '{"verdict_so_far": "correct"}'},
            )  # fmt: skip
            if answer.status_code == 200:
                number = answer.json()["number"]
                self.seen.saved[name].append((number, digest))
                assert answer.json()["sha256"] == digest
            await asyncio.sleep(self.rng.uniform(0.6, 1.4) * SAVE_SECONDS)
            if self.rng.random() < 0.1:
                await self.ask("work list", "GET", "/api/work")
        sending.cancel()
        await self.ask("mask", "GET", f"{url}/mask")
        body = {"sitting": self.sitting, "number": number, "verdict": "correct"}
        done = await self.ask("submit", "POST", f"{url}/submit", json=body)
        if done.status_code == 200:
            self.seen.handed_in[name] = digest
        await self.client.aclose()

    def draw(self, mask: NDArray[np.uint8]) -> tuple[bytes, str]:
        """A stroke somewhere, and the whole mask as it is sent."""
        where = [self.rng.randrange(0, n - 12) for n in self.shape]
        mask[tuple(slice(at, at + 12) for at in where)] = self.rng.choice([0, 1, 2])
        raw = mask.tobytes(order="F")
        return igzip.compress(raw, 1), hashlib.sha256(raw).hexdigest()

    async def send_time(self, name: str) -> None:
        """Batches of what the reader did."""
        start = time.perf_counter()
        number = 0
        while True:
            await asyncio.sleep(self.rng.uniform(0.8, 1.2) * TIME_SECONDS)
            number += 1
            now = 1000 * (time.perf_counter() - start)
            kinds = ["open"] if number == 1 else ["input"] * 6
            events = [{"kind": kind, "ms": now - 900 + 100 * i} for i, kind in enumerate([*kinds, "heartbeat"])]
            body = {"sitting": self.sitting, "number": number, "sent_ms": now, "events": events}
            answer = await self.ask("time", "POST", f"/api/work/{name}/time", json=body)
            if answer.status_code == 200:
                self.seen.batches.append((name, self.sitting, number))


async def readers_at_work(url: str, grids: dict[str, tuple[int, int, int]], seconds: float) -> Seen:
    """All readers at once."""
    seen = Seen()
    readers = [Reader(url, login, shape, seen, seconds) for login, shape in grids.items()]
    for reader in readers:
        await reader.sign_in()  # one after the other: a password's hash is slow on purpose
    await asyncio.gather(*(reader.work() for reader in readers))
    return seen


def lost(root: Path, seen: Seen) -> list[str]:
    """What was acknowledged and is not there."""
    from redraft.desk.mask import unpack
    from redraft.desk.saves import KEEP_LAST, WorkStore
    from redraft.project import Project
    from redraft.volumes import read_volume

    project = Project.open(root)
    store = WorkStore(project.desk, project.state / "desk")
    missing = []
    for name, saves in seen.saved.items():
        exam = project.ledger.rows("assignment", assignment_id=name)[0]["exam_id"]
        shape = tuple(project.ledger.rows("exam", exam_id=exam)[0]["shape"])
        for number, digest in saves[-KEEP_LAST:]:
            kept = store.latest(name, number)
            if kept is None or unpack(kept.path.read_bytes(), shape, {1, 2}).sha256 != digest:
                missing.append(f"autosave {number} of {name}")
    there = {(row["assignment_id"], row["sitting"], row["number"]) for row in project.ledger.rows("time_batch")}
    missing += [f"batch {batch}" for batch in seen.batches if batch not in there]
    for name, digest in seen.handed_in.items():
        label = read_volume(project.work / name / "label.nii.gz").array.astype(np.uint8)
        if hashlib.sha256(label.tobytes(order="F")).hexdigest() != digest:
            missing.append(f"label of {name}")
    return missing


def main() -> int:
    """Run, print, and say whether the bar was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--large", type=int, default=5, help="readers with the large exam")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each draws")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="redraft-review-") as folder:
        root = Path(folder) / "project"
        grids = make_project(root, chosen.readers, chosen.large)
        command = [sys.executable, "-m", "app.cli.main", "serve", "--port", "0", "--json", "--project", str(root)]
        load = os.getloadavg()[0]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            start = time.monotonic()
            try:
                seen = asyncio.run(readers_at_work(url, grids, chosen.seconds))
            finally:
                seconds = time.monotonic() - start
                memory = _resident_mb(server.pid)
                server.terminate()
        print(f"{chosen.readers} readers, {chosen.large} of them on {LARGE[0]}, the others on {ORDINARY[0]}")
        print(f"{os.cpu_count()} cores for readers and server together; load before: {load:.1f}")
        print(f"{'route':12}{'calls':>7}{'p50':>9}{'p95':>9}{'max':>9}   ms")
        for route, values in sorted(seen.ms.items()):
            p50, p95 = np.percentile(values, [50, 95])
            print(f"{route:12}{len(values):7d}{p50:9.1f}{p95:9.1f}{max(values):9.1f}")
        calls = [value for route, values in seen.ms.items() if route not in (*PIXELS, "sign-in") for value in values]
        p95 = float(np.percentile(calls, 95))
        missing = lost(root, seen)
        saves = sum(map(len, seen.saved.values()))
        print(f"API calls (volumes and sign-ins apart): p95 {p95:.1f} ms of {len(calls)}, bar {BAR_MS:.0f} ms")
        print(f"server's memory at its highest: {memory:.0f} MB; {seconds:.0f} s in all")
        print(
            f"acknowledged: {saves} autosaves, {len(seen.batches)} batches, {len(seen.handed_in)} hand-ins; "
            f"refused {len(seen.refused)}; lost {len(missing)}"
        )
        for line in [*seen.refused[:5], *missing[:5]]:
            print(f"  {line}")
        return int(p95 > BAR_MS or bool(missing) or bool(seen.refused))


def _resident_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(found[1]) / 1000 if found else float("nan")


if __name__ == "__main__":
    sys.exit(main())
