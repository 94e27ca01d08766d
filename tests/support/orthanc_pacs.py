"""Orthanc as the PACS of a test: started on free loopback ports in a folder of its own, ended by its pid."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """``with Orthanc(folder) as pacs``; `get` speaks its REST API."""

    ae_title = "ORTHANC"

    def __init__(self, program: str, folder: Path, **configuration: Any) -> None:
        self.dicom_port, self.http_port = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._configuration = folder / "orthanc.json"
        self._program, self._log = program, folder / "orthanc.log"
        plugins = [str(path) for path in Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb*.so*")]
        settings = {
            "Name": "PACS",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": self.ae_title,
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "Plugins": plugins[:1],
            **configuration,
        }
        self._configuration.write_text(json.dumps(settings))

    def __enter__(self) -> "Orthanc":
        with open(self._log, "w") as log:
            self._process = subprocess.Popen([self._program, str(self._configuration)], stdout=log, stderr=log)
        for _ in range(300):
            try:
                self.get("/system")
                return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        raise TimeoutError(f"Orthanc did not start; see {self._log}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def get(self, path: str) -> Any:
        """A resource as JSON."""
        return json.loads(self.fetch(path))

    def fetch(self, path: str) -> bytes:
        """A resource as it comes. Raises `urllib.error.HTTPError`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=20) as answer:
            return bytes(answer.read())

    def instances(self) -> list[dict[str, Any]]:
        """Every instance with its main tags, its own and its parents'."""
        found = []
        for identifier in self.get("/instances"):
            tags = self.get(f"/instances/{identifier}/simplified-tags")
            found.append({"id": identifier, **tags})
        return found


def program() -> str | None:
    """Where Debian puts it."""
    return shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
