"""What every tool has in common: two sides, each with a home and a folder, and the steps that it is put through."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from processes import Failed, Processes, disk_bytes

NO_WORD = "a tool that says nothing of its version"


@dataclass(frozen=True)
class Side:
    """One of the two computers, as far as a tool can tell."""

    home: Path
    tree: Path


class Tool(ABC):
    """A tool between two sides: `a` has the data, `b` shall have it."""

    name: str
    programs: tuple[str, ...]
    """What it runs; the first tells the version."""
    packages: tuple[str, ...]
    version_command: tuple[str, ...]
    how: str
    """How it is driven here."""
    lacks: str
    """What it does not do, or does otherwise."""
    over_network: bool
    """Whether its bytes go over the loopback; otherwise both sides are folders to one process."""
    two_sided = True
    """Otherwise it keeps the versions of `a` in one repository, and there is no folder `b`."""
    watches = False
    own_names: frozenset[str] = frozenset()
    """What it keeps at the top of the folders."""

    def __init__(self, place: Path, processes: Processes) -> None:
        self.processes = processes
        self.a = Side(place / "a" / "home", place / "a" / "tree")
        self.b = Side(place / "b" / "home", place / "b" / "tree")
        self.scratch = place / "scratch"
        for folder in (self.a.home, self.b.home, self.b.tree, self.scratch):
            folder.mkdir(parents=True)

    @classmethod
    def missing(cls) -> list[str]:
        """The programs that are not installed."""
        return [program for program in cls.programs if not shutil.which(program)]

    def environment(self, side: Side) -> Mapping[str, str]:
        """Nothing of the user who runs this, but the path."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(side.home),
            "XDG_CONFIG_HOME": str(side.home / ".config"),
            "XDG_CACHE_HOME": str(side.home / ".cache"),
            "XDG_STATE_HOME": str(side.home / ".state"),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def run(self, side: Side, *command: str | Path, accepted: tuple[int, ...] = (0,)) -> str:
        """Runs a command in the folder of a side."""
        return self.processes.run([*map(str, command)], side.tree, self.environment(side), accepted)

    def start(self, side: Side, *command: str | Path) -> None:
        """Starts a daemon of a side."""
        self.processes.start([*map(str, command)], side.home, self.environment(side))

    def prepare(self) -> None:
        """What is set up once, and started, before anything is measured."""

    @abstractmethod
    def first(self) -> None:
        """All that is on `a` comes to `b`, from nothing."""

    def settle(self) -> None:
        """After the first sync, not measured."""

    @abstractmethod
    def sync(self, changed: str | None) -> None:
        """What changed on `a`, at this path or nowhere, comes to `b`."""

    def note_version(self) -> None:
        """The present version is the one that `restore` will be asked for. Not measured."""

    def prepare_restore(self) -> None:
        """What comes right before `restore`, not measured."""

    def restore(self, path: str) -> Path:
        """The noted version of a file; where it has been put."""
        raise NotImplementedError

    @property
    def restores(self) -> bool:
        """Whether it can do that at all."""
        return type(self).restore is not Tool.restore

    def start_watching(self) -> None:
        """From here on changes shall go to `b` by themselves."""

    def stop_watching(self) -> None:
        """From here on they need not."""

    def unpack_newest(self, into: Path) -> None:
        """For what is not two-sided: the newest version of everything, for the comparison. Not measured."""
        raise NotImplementedError

    def kept_bytes(self) -> tuple[int, int]:
        """Disk blocks of all that each side holds beyond the files of the folder: history, databases, settings."""
        first, second = (
            disk_bytes(side.home) + sum(disk_bytes(side.tree / name) for name in self.own_names)
            for side in (self.a, self.b)
        )
        return first, second

    def version(self) -> str:
        """What the tool says of its version."""
        said = self.run(self.a, *self.version_command).strip()
        if not said:
            raise Failed(NO_WORD)
        return said.splitlines()[0]
