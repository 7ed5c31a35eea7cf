"""Orthanc with its DICOMweb plugin (Debian: orthanc, orthanc-dicomweb): a real DICOM server on loopback."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

PLUGIN = "libOrthancDicomWeb.so"
PLUGIN_FOLDERS = (
    Path("/usr/lib/orthanc"),
    Path("/usr/share/orthanc/plugins"),
    Path("/usr/local/share/orthanc/plugins"),
)
USER = "redraft"
READY_SECONDS = 20.0


@dataclass
class Orthanc:
    """A running server.

    Attributes
    ----------
    url, dicomweb_url
        Root of the REST API and of DICOMweb, without a slash at the end.
    dicom_port, ae_title
        Of its DIMSE side: C-ECHO, C-STORE, C-FIND and C-MOVE for any caller; C-MOVE only to known modalities.
    """

    url: str
    dicomweb_url: str
    host: str
    http_port: int
    dicom_port: int
    ae_title: str
    user: str
    password: str
    session: requests.Session = field(repr=False)

    def rest(self, method: str, path: str, **options: Any) -> requests.Response:
        """One call of the REST API; raises where the server says no."""
        answer = self.session.request(method, f"{self.url}/{path.lstrip('/')}", timeout=60, **options)
        answer.raise_for_status()
        return answer

    def get(self, path: str, **params: Any) -> Any:
        """JSON at a path of the REST API."""
        return self.rest("GET", path, params=params).json()

    def delete(self, path: str) -> None:
        """Delete a resource, e.g. ``series/<Orthanc's id>``."""
        self.rest("DELETE", path)

    def put(self, paths: Iterable[Path]) -> list[str]:
        """Store DICOM files as they are; Orthanc's id of each instance."""
        return [self.rest("POST", "instances", data=path.read_bytes()).json()["ID"] for path in paths]

    def clear(self) -> None:
        """Delete everything it holds."""
        for patient in self.get("patients"):
            self.delete(f"patients/{patient}")

    def find(self, level: str, **query: str) -> list[str]:
        """Orthanc's ids of what matches, by DICOM keyword; level is Patient, Study, Series or Instance."""
        found = self.rest("POST", "tools/find", json={"Level": level, "Query": query, "CaseSensitive": True})
        return list(found.json())

    def add_modality(self, name: str, ae_title: str, port: int, host: str = "127.0.0.1", **options: Any) -> None:
        """Make a DICOM node known, e.g. as the destination of C-MOVE; one of the same name is replaced."""
        self.rest("PUT", f"modalities/{name}", json={"AET": ae_title, "Host": host, "Port": port, **options})


@contextmanager
def running_orthanc(
    folder: Path,
    *,
    ae_title: str = "ORTHANC",
    modalities: Mapping[str, tuple[str, str, int]] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Orthanc]:
    """Start a server whose files lie in `folder`; skips the test where the program or its plugin is absent.

    Parameters
    ----------
    modalities : mapping of name to (AE title, host, port)
        DICOM nodes that it knows from the start.
    options : mapping
        Further entries of Orthanc's configuration, e.g. ``{"DicomWeb": {...}}``.
    """
    program, plugin = _installed()
    folder.mkdir(parents=True, exist_ok=True)
    password = secrets.token_urlsafe(12)
    name = f"test-{secrets.token_hex(8)}"
    for _ in range(5):  # another process can take a port between its choice and its use
        http_port, dicom_port = _free_ports(2)
        config = _config(folder, plugin, name, password, http_port, dicom_port, ae_title, modalities or {})
        for key, value in (options or {}).items():
            config[key] = {**config.get(key, {}), **value} if isinstance(value, Mapping) else value
        (folder / "orthanc.json").write_text(json.dumps(config, indent=1))
        with open(folder / "orthanc.log", "wb") as log:
            process = subprocess.Popen(
                [*_dies_with_us(), program, str(folder / "orthanc.json")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder,
            )  # fmt: skip
        try:
            with requests.Session() as session:
                session.auth = (USER, password)
                session.trust_env = False
                url = f"http://127.0.0.1:{http_port}"
                if not _ready(process, session, url, name):
                    continue
                yield Orthanc(
                    url, f"{url}/dicom-web", "127.0.0.1", http_port, dicom_port, ae_title, USER, password, session
                )
                return
        finally:
            _end(process)
    raise RuntimeError(f"Orthanc did not start:\n{(folder / 'orthanc.log').read_text()[-3000:]}")


def _installed() -> tuple[str, Path]:
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("Orthanc is not installed (Debian: apt install orthanc orthanc-dicomweb)")
    for folder in PLUGIN_FOLDERS:
        for plugin in sorted(folder.glob(f"{PLUGIN}*")):
            return program, plugin
    pytest.skip("Orthanc's DICOMweb plugin is not installed (Debian: apt install orthanc-dicomweb)")


def _config(
    folder: Path,
    plugin: Path,
    name: str,
    password: str,
    http_port: int,
    dicom_port: int,
    ae_title: str,
    modalities: Mapping[str, tuple[str, str, int]],
) -> dict[str, Any]:
    return {
        "Name": name,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(plugin)],
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: password},
        "WebDavEnabled": False,
        "DicomAet": ae_title,
        "DicomPort": dicom_port,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {
            key: {"AET": title, "Host": host, "Port": port} for key, (title, host, port) in modalities.items()
        },
        "SynchronousCMove": True,
        "SaveJobs": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False, "Ssl": False},
    }


def _dies_with_us() -> list[str]:
    # A test run that is killed cannot end its servers; the kernel can. setpriv becomes Orthanc and keeps its pid.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _ready(process: subprocess.Popen[bytes], session: requests.Session, url: str, name: str) -> bool:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            answer = session.get(f"{url}/system", timeout=5)
            if answer.ok and answer.json()["Name"] == name:
                return True
        except requests.RequestException:
            pass
        time.sleep(0.02)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    # Asked politely it takes three seconds, and there is nothing in its folder that anybody needs afterwards.
    process.kill()
    process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
