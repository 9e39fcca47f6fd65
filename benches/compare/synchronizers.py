"""Tools that keep two folders the same. Syncthing has a file of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

from processes import free_port, is_open
from tool import Side, Tool

KEEPS_EVERYTHING = (
    "keeps every version of every file on both sides, so both need the disk for it; no partial copies; "
    "no encryption at rest"
)


class FoldersyncByPath(Tool):
    """Both folders on one computer, one of them on another disk perhaps."""

    name = "foldersync-path"
    programs = ("target/release/foldersync",)
    packages = ()
    version_command = (*programs, "--version")
    how = "`init`, `clone` and `peer add` by path; `exchange`; `revert`"
    lacks = KEEPS_EVERYTHING
    over_network = False
    own_names = frozenset({".git"})

    @classmethod
    def use(cls, program: Path) -> None:
        """Measures this build of it."""
        cls.programs = (str(program),)
        cls.version_command = (str(program), "--version")

    def foldersync(self, side: Side, *arguments: str | Path) -> str:
        """Runs it with the home of a side."""
        return self.run(side, self.programs[0], "--home", side.home, *arguments)

    def first(self) -> None:
        self.foldersync(self.a, "init", self.a.tree)
        self.foldersync(self.b, "clone", self.a.tree, self.b.tree)
        self.foldersync(self.a, "peer", "add", "b", self.b.tree)

    def sync(self, changed: str | None) -> None:
        self.foldersync(self.a, "exchange")

    def restore(self, path: str) -> Path:
        self.foldersync(self.a, "revert", f"{path}@-1")
        return self.a.tree / path


class Foldersync(FoldersyncByPath):
    """Two devices with daemons."""

    name = "foldersync"
    how = (
        "first sync by `share` and `join` between two daemons (`serve`); then a daemon on b and the command `exchange` "
        "on a; live with both daemons; `revert`"
    )
    over_network = True
    watches = True

    def prepare(self) -> None:
        for name, side in (("a", self.a), ("b", self.b)):
            settings = f'[device]\nname = "{name}"\nport = {free_port()}\nlocal_discovery = false\n'
            (side.home / "config.toml").write_text(settings)
            self.serve(side)

    def serve(self, side: Side) -> None:
        """Starts the daemon of a side."""
        self.start(side, self.programs[0], "--home", side.home, "serve", "--loopback")
        settings = (side.home / "config.toml").read_text()
        port = int(settings.partition("port = ")[2].splitlines()[0])
        self.processes.wait(lambda: is_open(port), "the daemon to listen")

    def first(self) -> None:
        ticket = self.foldersync(self.a, "share", "--no-wait", self.a.tree).split()[0]
        self.foldersync(self.b, "join", ticket, self.b.tree)

    def settle(self) -> None:
        self.stop_watching()

    def start_watching(self) -> None:
        self.serve(self.a)
        self.processes.wait(self.in_step, "the two to be in step", every=0.1)

    def in_step(self) -> bool:
        """Whether the daemon of `a` has said that both sides are the same."""
        daemon = json.loads(self.foldersync(self.a, "status", "--json"))["daemon"]
        return bool(daemon) and any(peer["in_step"] for peer in daemon["peers"].values())

    def stop_watching(self) -> None:
        daemon = next(daemon for daemon in self.processes.daemons if str(self.a.home) in daemon.args)
        self.processes.stop(daemon)


class RsyncByPath(Tool):
    """From folder to folder: whole files are written, which costs least where both are at hand."""

    name = "rsync-path"
    programs = ("rsync",)
    packages = ("rsync",)
    version_command = ("rsync", "--version")
    how = "`rsync -a --delete --backup --backup-dir` from folder to folder; restore by `cp` of the kept copy"
    lacks = (
        "one way only, so there is nothing to merge; keeps a whole copy of each file that it replaces, on the side "
        "that is written to, because it is told to here; does not sync to disk"
    )
    over_network = False
    own_names = frozenset({".versions"})
    runs = 0
    noted = 0

    def target(self) -> str:
        """Where to."""
        return f"{self.b.tree}/"

    def first(self) -> None:
        self.sync(None)

    def sync(self, changed: str | None) -> None:
        self.runs += 1
        kept = f"--backup-dir=.versions/{self.runs}"
        source = f"{self.a.tree}/"
        self.run(self.a, "rsync", "-a", "--delete", "--backup", kept, "--exclude=/.versions", source, self.target())

    def note_version(self) -> None:
        self.noted = self.runs + 1

    def restore(self, path: str) -> Path:
        self.run(self.b, "cp", "-p", self.b.tree / ".versions" / str(self.noted) / path, self.b.tree / path)
        return self.b.tree / path


class Rsync(RsyncByPath):
    """To a daemon, with its delta transfer."""

    name = "rsync"
    how = "the same to an rsync daemon, with its delta transfer"
    over_network = True

    def prepare(self) -> None:
        self.port = free_port()
        settings = self.b.home / "rsyncd.conf"
        module = f"[b]\npath = {self.b.tree}\nread only = no\n"
        if os.getuid() == 0:
            module += "uid = 0\ngid = 0\n"
        settings.write_text(f"address = 127.0.0.1\nport = {self.port}\nuse chroot = no\nreverse lookup = no\n{module}")
        self.start(self.b, "rsync", "--daemon", "--no-detach", f"--config={settings}")
        self.processes.wait(lambda: is_open(self.port), "the rsync daemon")

    def target(self) -> str:
        return f"rsync://127.0.0.1:{self.port}/b/"


class Unison(Tool):
    """Both ways, with a server on the other side."""

    name = "unison"
    programs = ("unison",)
    packages = ("unison",)
    version_command = ("unison", "-version")
    how = "`unison -batch` to a socket server, with `backup = Name *`; live by `-repeat 1`; restore by `cp`"
    lacks = (
        "keeps a whole copy of each file that it replaces, on the side that is written to, because it is told to here "
        "(by default no history); Debian packages no watcher with it, so live it looks again every second; does not "
        "sync to disk"
    )
    over_network = True
    watches = True

    def environment(self, side: Side) -> dict[str, str]:
        return {**super().environment(side), "UNISON": str(side.home / "unison")}

    def prepare(self) -> None:
        port = free_port()
        for side in (self.a, self.b):
            (side.home / "unison").mkdir()
        (self.a.home / "unison" / "default.prf").write_text(
            f"root = {self.a.tree}\nroot = socket://127.0.0.1:{port}/{self.b.tree}\nbatch = true\ntimes = true\n"
            "confirmbigdel = false\nlog = false\nbackup = Name *\nbackuploc = central\nmaxbackups = 5\n"
        )
        self.start(self.b, "unison", "-socket", str(port), "-listen", "127.0.0.1")
        self.processes.wait(lambda: is_open(port), "the unison server")

    def first(self) -> None:
        self.sync(None)

    def sync(self, changed: str | None) -> None:
        self.run(self.a, "unison", "default", "-ui", "text", "-silent")

    def start_watching(self) -> None:
        self.start(self.a, "unison", "default", "-ui", "text", "-silent", "-repeat", "1")
        self.processes.wait_until_calm(longest=10)

    def stop_watching(self) -> None:
        self.processes.stop(self.processes.daemons[-1])

    def restore(self, path: str) -> Path:
        """The newest copy has the name of the file."""
        self.run(self.b, "cp", "-p", self.b.home / "unison" / "backup" / path, self.b.tree / path)
        return self.b.tree / path


class Rclone(Tool):
    """Both ways, by path."""

    name = "rclone"
    programs = ("rclone",)
    packages = ("rclone",)
    version_command = ("rclone", "version")
    how = "`rclone bisync` from folder to folder"
    lacks = (
        "no history; sends whole files; its makers call bisync experimental in the version that Debian 12 packages; "
        "does not sync to disk"
    )
    over_network = False

    def bisync(self, *options: str) -> None:
        """One run; a folder of which every file has changed is no accident here."""
        settings = ("--config", self.a.home / "rclone.conf", "--workdir", self.a.home / "bisync", "--force")
        self.run(self.a, "rclone", "bisync", self.a.tree, self.b.tree, *settings, *options)

    def prepare(self) -> None:
        (self.a.home / "rclone.conf").touch()

    def first(self) -> None:
        self.bisync("--resync")

    def sync(self, changed: str | None) -> None:
        self.bisync()

