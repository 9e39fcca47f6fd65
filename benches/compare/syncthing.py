"""Syncthing: two daemons that are talked to over sockets in the file system, so that questions are no traffic."""

from __future__ import annotations

import http.client
import json
import socket
import time
import urllib.parse
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

from data import files_of
from processes import Failed, free_port
from tool import Side, Tool

KEY = "compare"
QUIET_OPTIONS = {
    "globalAnnounceEnabled": "false",
    "localAnnounceEnabled": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "announceLANAddresses": "false",
    "stunKeepaliveStartS": "0",
    "urAccepted": "-1",
    "crashReportingEnabled": "false",
    "autoUpgradeIntervalH": "0",
    "startBrowser": "false",
    "reconnectionIntervalS": "1",
    "setLowPriority": "false",
}
"""It speaks with the other side only, and has the priority that the other tools have."""


class Connection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=600)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Syncthing(Tool):
    """Both ways, always watching."""

    name = "syncthing"
    programs = ("syncthing",)
    packages = ("syncthing",)
    version_command = ("syncthing", "--version")
    how = (
        "two daemons with simple versioning (5 copies kept); a rescan is asked for where the others get a command; "
        "live with its watcher as it is set by default; restore over its own interface"
    )
    lacks = (
        "keeps a whole copy of each file that it replaces, on the side that is written to, because it is told to here "
        "(by default no history); by default waits 10 s for a folder to be quiet before it sends (can be set to 1 s)"
    )
    over_network = True
    watches = True
    own_names = frozenset({".stfolder", ".stversions"})

    def prepare(self) -> None:
        ports = {side: free_port() for side in (self.a, self.b)}
        for side in ports:
            self.run(side, "syncthing", "generate", f"--home={side.home}", "--no-default-folder")
        devices = {side: own_device(side) for side in ports}
        for side in ports:
            self.configure(side, devices, ports)
            self.start(
                side, "syncthing", "serve", f"--home={side.home}", "--no-browser", "--no-default-folder",
                "--no-upgrade", "--no-restart", f"--gui-address=unix://{self.socket(side)}", f"--gui-apikey={KEY}",
            )  # fmt: skip
        self.processes.wait(self.connected, "the two to connect", every=0.1)
        self.processes.wait_until_calm(longest=10)

    def socket(self, side: Side) -> Path:
        """Where the daemon of a side is asked; the path of a socket has to be short, and so that of the scratch."""
        return self.scratch / side.home.parent.name

    def configure(self, side: Side, devices: dict[Side, str], ports: dict[Side, int]) -> None:
        """Both devices, and a folder that is paused until the clock starts."""
        file = side.home / "config.xml"
        settings = xml.parse(file)
        root = settings.getroot()
        for element in root.findall("folder") + root.findall("device"):
            root.remove(element)
        folder = xml.SubElement(
            root, "folder", id="f", label="f", path=str(side.tree), type="sendreceive", rescanIntervalS="3600",
            fsWatcherEnabled="true", fsWatcherDelayS="10", ignorePerms="false", autoNormalize="true",
        )  # fmt: skip
        xml.SubElement(folder, "paused").text = "true"
        versioning = xml.SubElement(folder, "versioning", type="simple")
        xml.SubElement(versioning, "param", key="keep", val="5")
        for other, device in devices.items():
            known = xml.SubElement(root, "device", id=device, name=other.home.parent.name, compression="metadata")
            xml.SubElement(known, "address").text = f"tcp://127.0.0.1:{ports[other]}"
            xml.SubElement(folder, "device", id=device)
        options = root.find("options")
        if options is None:
            raise Failed("a configuration without options")
        for key, value in {**QUIET_OPTIONS, "listenAddress": f"tcp://127.0.0.1:{ports[side]}"}.items():
            for element in options.findall(key):
                options.remove(element)
            xml.SubElement(options, key).text = value
        settings.write(file)

    def ask(self, side: Side, method: str, what: str, body: object = None, **query: str) -> Any:
        """One question to a daemon."""
        connection = Connection(self.socket(side))
        try:
            connection.request(
                method,
                f"/rest/{what}?{urllib.parse.urlencode(query)}",
                None if body is None else json.dumps(body),
                {"X-API-Key": KEY, "Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise Failed(f"{method} {what}: {answer.status} {text[:200]!r}")
        return json.loads(text) if text.strip() else None

    def connected(self) -> bool:
        """Whether each side sees the other."""
        try:
            answers = [self.ask(side, "GET", "system/connections") for side in (self.a, self.b)]
        except OSError:
            return False
        return all(any(one["connected"] for one in answer["connections"].values()) for answer in answers)

    def first(self) -> None:
        count = sum(1 for _ in files_of(self.a.tree, self.own_names))
        for side in (self.a, self.b):
            self.ask(side, "PATCH", "config/folders/f", {"paused": False})

        def complete() -> bool:
            status = self.ask(self.b, "GET", "db/status", folder="f")
            return bool(
                status["localFiles"] == count and status["needTotalItems"] == 0 and status["state"] == "idle"
            )

        self.processes.wait(complete, "the first sync", every=0.05)

    def settle(self) -> None:
        self.processes.wait_until_calm()

    def sync(self, changed: str | None) -> None:
        if changed is None:
            self.ask(self.b, "POST", "db/scan", folder="f")
        self.ask(self.a, "POST", "db/scan", folder="f")
        if changed is not None:
            wanted = self.state_of(self.a, changed)
            self.processes.wait(lambda: self.state_of(self.b, changed) == wanted, f"{changed} to arrive", every=0.02)

    def state_of(self, side: Side, path: str) -> Any:
        """Which version of a file a side has."""
        return self.ask(side, "GET", "db/file", folder="f", file=path)["local"]["version"]

    def start_watching(self) -> None:
        self.processes.wait_until_calm()

    def note_version(self) -> None:
        # It names what it keeps by the second, and of two with one name only one stays.
        time.sleep(1.1)

    def prepare_restore(self) -> None:
        self.note_version()

    def restore(self, path: str) -> Path:
        """On `b`, which holds what it replaced."""
        versions = self.ask(self.b, "GET", "folder/versions", folder="f")[path]
        newest = max(version["versionTime"] for version in versions)
        refused = self.ask(self.b, "POST", "folder/versions", {path: newest}, folder="f")
        if refused:
            raise Failed(f"not restored: {refused}")
        return self.b.tree / path


def own_device(side: Side) -> str:
    """The identity that has just been made."""
    device = xml.parse(side.home / "config.xml").getroot().find("device")
    if device is None:
        raise Failed("a configuration without a device")
    return device.attrib["id"]
