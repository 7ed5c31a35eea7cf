"""An intake from a bucket, over HTTP: the same exams as from a folder, and nothing is asked for twice."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pydicom

from redraft.project import Project
from tasks.ingest.admit import take_in
from tests.servers.s3 import S3, Proxy
from tests.tasks.ingest.conftest import NOW


def test_a_bucket_gives_the_exams_that_its_files_would(
    s3: S3, project: Callable[..., Project], add: Callable[..., list[Path]], tmp_path: Path
) -> None:
    """Objects in two prefixes and an archive come in once; a second intake reads nothing; no name is kept."""
    series = [add(f"s{n}") for n in range(3)]
    keys = {name: tmp_path / f"{name}.txt" for name in ("key", "secret")}
    for name, path in keys.items():
        path.write_text(getattr(s3, name))
    patient = str(pydicom.dcmread(series[0][0]).PatientName)
    proxy = Proxy(s3.endpoint)
    with s3.bucket() as bucket:
        put = lambda key, data: s3.client.put_object(Bucket=bucket, Key=key, Body=data)  # noqa: E731
        for n, path in enumerate(series[0]):
            put(f"{'ab'[n % 2]}/{patient}/{path.name}", path.read_bytes())
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path in series[1]:
                archive.write(path, f"{patient}/{path.name}")
            archive.writestr("../evil", b"?")
        put(f"{patient}.zip", packed.getvalue())
        for path in series[2]:
            put(f"c/{path.name}", path.read_bytes())
        put("c/letter.txt", b"Dear colleague")
        source = json.dumps({
            "kind": "s3", "name": "archive", "bucket": bucket, "endpoint": proxy.endpoint,
            "access_key": {"file": str(keys["key"])}, "secret_key": {"file": str(keys["secret"])},
        })  # fmt: skip
        remote = project(("  modalities: [CT]\n", f"  modalities: [CT]\n  sources: [{source}]\n"))
        first = take_in(remote, None, NOW, "test", workers=1)
        assert Counter((r.verdict, r.rule) for r in first) == {
            ("admitted", "admitted"): 3, ("refused", "archive_path"): 1, ("refused", "not_dicom"): 1,
        }  # fmt: skip
        local = project()
        take_in(local, [series[0][0].parents[1]], NOW, "test", workers=1)
        exams = {row["exam_id"]: row["image_sha256"] for row in remote.ledger.rows("exam")}
        assert exams == {row["exam_id"]: row["image_sha256"] for row in local.ledger.rows("exam")}
        proxy.requests.clear()
        again = take_in(remote, None, NOW, "test", workers=1)
        assert proxy.gets() == []
        assert Counter(r.verdict for r in again) == {"duplicate": 3, "refused": 2}
    proxy.close()
    assert not [path for path in remote.vault_dir.rglob("*") if path.is_file() and "unpacked" in path.parts]
    for path in remote.root.rglob("*"):
        assert patient not in str(path)
        assert not path.is_file() or patient.encode() not in path.read_bytes()
