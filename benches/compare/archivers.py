"""Tools that keep versions: git and what is built on it or like it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from processes import free_port, is_open
from tool import Side, Tool

GIT_SETTINGS = """[user]
name = compare
email = compare@example.invalid
[init]
defaultBranch = main
[gc]
auto = 0
"""


class Git(Tool):
    """Plain git, by hand."""

    name = "git"
    programs = ("git",)
    packages = ("git",)
    version_command = ("git", "--version")
    how = "`git add -A`, one commit for everything, `git daemon`; `clone` and `pull`; `checkout COMMIT -- FILE`"
    lacks = (
        "nothing happens by itself: somebody has to add, commit and pull; one commit for everything at once; its "
        "history holds the present version, too; garbage collection is off here, so that none falls into a step"
    )
    over_network = True
    own_names = frozenset({".git"})

    def prepare(self) -> None:
        self.configure()
        self.port = free_port()
        self.start(
            self.a, "git", "daemon", "--listen=127.0.0.1", f"--port={self.port}", "--reuseaddr", "--export-all",
            f"--base-path={self.a.tree.parent}", self.a.tree,
        )  # fmt: skip
        self.processes.wait(lambda: is_open(self.port), "the git daemon")

    def configure(self) -> None:
        """Who commits, and that nothing is done in the background."""
        for side in (self.a, self.b):
            (side.home / ".gitconfig").write_text(GIT_SETTINGS)

    def capture(self) -> None:
        """A commit, if there is anything to be committed."""
        self.run(self.a, "git", "add", "-A")
        self.run(self.a, "sh", "-c", "git diff --cached --quiet || git commit -q -m capture")

    def first(self) -> None:
        self.run(self.a, "git", "init", "-q")
        self.capture()
        self.run(self.b, "git", "clone", "-q", f"git://127.0.0.1:{self.port}/{self.a.tree.name}", self.b.tree)

    def sync(self, changed: str | None) -> None:
        self.capture()
        self.run(self.b, "git", "pull", "-q", "--ff-only")

    def note_version(self) -> None:
        self.noted = self.run(self.a, "git", "rev-parse", "HEAD").strip()

    def restore(self, path: str) -> Path:
        self.run(self.a, "git", "checkout", "-q", self.noted, "--", path)
        return self.a.tree / path


class GitAnnex(Git):
    """Large files beside git."""

    name = "git-annex"
    programs = ("git-annex", "git")
    packages = ("git-annex",)
    version_command = ("git-annex", "version")
    how = (
        "`git annex add`, `sync --content` by path, files unlocked (`annex.addunlocked`); live by `assistant` on both "
        "sides; restore by `checkout` and `get`"
    )
    lacks = (
        "keeps a whole copy of every version, on both sides; takes about a tenth of a second for each file that it "
        "sends"
    )
    over_network = False
    watches = True

    def prepare(self) -> None:
        self.configure()

    def annex(self, side: Side, *arguments: str) -> None:
        """One of its commands."""
        self.run(side, "git", "annex", *arguments)

    def first(self) -> None:
        self.run(self.a, "git", "init", "-q")
        self.begin(self.a)
        self.annex(self.a, "add", "-q", ".")
        self.run(self.a, "git", "commit", "-q", "-m", "capture")
        self.run(self.b, "git", "clone", "-q", "--origin", "peer", self.a.tree, self.b.tree)
        self.begin(self.b)
        self.run(self.a, "git", "remote", "add", "peer", self.b.tree)
        self.sync(None)

    def begin(self, side: Side) -> None:
        """Makes a repository one of its own."""
        self.annex(side, "init", "-q", side.home.parent.name)
        self.run(side, "git", "config", "annex.addunlocked", "true")

    def sync(self, changed: str | None) -> None:
        for side in (self.a, self.b):
            self.annex(side, "add", "-q", ".")
            self.annex(side, "sync", "-q", "--content", "peer")

    def start_watching(self) -> None:
        for side in (self.b, self.a):
            self.processes.start(["git-annex", "assistant", "--foreground"], side.tree, self.environment(side))
        self.processes.wait_until_calm()

    def stop_watching(self) -> None:
        self.processes.stop_all()

    def restore(self, path: str) -> Path:
        super().restore(path)
        self.annex(self.a, "get", "-q", "--", path)
        return self.a.tree / path


class Bup(Tool):
    """Versions of one side, in chunks."""

    name = "bup"
    programs = ("bup", "git")
    packages = ("bup",)
    version_command = ("bup", "version")
    how = "`bup index` and `bup save` into a local repository; `bup restore`"
    lacks = "one central repository: there is no second folder that it keeps in step"
    over_network = False
    two_sided = False
    saved = 0
    noted = 0

    def environment(self, side: Side) -> Mapping[str, str]:
        return {**super().environment(side), "BUP_DIR": str(self.a.home / "repository")}

    def first(self) -> None:
        self.run(self.a, "bup", "init")
        self.sync(None)

    def sync(self, changed: str | None) -> None:
        # What was saved is named by its second, which must not be that of another.
        self.saved = max(int(time.time()), self.saved + 1)
        self.run(self.a, "bup", "index", "-u", self.a.tree)
        self.run(self.a, "bup", "save", "-q", "--strip", "-n", "main", "-d", str(self.saved), self.a.tree)

    def note_version(self) -> None:
        self.noted = self.saved

    def unpack(self, saved: int, path: str, into: Path) -> None:
        """What was saved then."""
        name = time.strftime("%Y-%m-%d-%H%M%S", time.gmtime(saved))
        self.run(self.a, "bup", "restore", "-q", "-C", into, f"/main/{name}/{path}")

    def restore(self, path: str) -> Path:
        self.unpack(self.noted, path, self.scratch / "restored")
        return self.scratch / "restored" / Path(path).name

    def unpack_newest(self, into: Path) -> None:
        self.unpack(self.saved, ".", into)


class Restic(Tool):
    """Versions of one side, in chunks, encrypted."""

    name = "restic"
    programs = ("restic",)
    packages = ("restic",)
    version_command = ("restic", "version")
    how = "`restic backup` into a local repository; `restic restore --include`"
    lacks = (
        "one central repository: there is no second folder that it keeps in step; it encrypts what it keeps, which "
        "the others do not"
    )
    over_network = False
    two_sided = False
    noted = ""

    def environment(self, side: Side) -> Mapping[str, str]:
        return {
            **super().environment(side),
            "RESTIC_REPOSITORY": str(self.a.home / "repository"),
            "RESTIC_PASSWORD": "compare",
        }

    def first(self) -> None:
        self.run(self.a, "restic", "-q", "init")
        self.sync(None)

    def sync(self, changed: str | None) -> None:
        self.run(self.a, "restic", "-q", "backup", ".")

    def note_version(self) -> None:
        snapshots = json.loads(self.run(self.a, "restic", "snapshots", "--json"))
        self.noted = max(snapshots, key=lambda snapshot: str(snapshot["time"]))["id"]

    def restore(self, path: str) -> Path:
        into = self.scratch / "restored"
        self.run(self.a, "restic", "-q", "restore", self.noted, "--target", into, "--include", f"/{path}")
        return into / path

    def unpack_newest(self, into: Path) -> None:
        self.run(self.a, "restic", "-q", "restore", "latest", "--target", into)
