"""The data: what it is, how users change it, and whether two folders are the same.

Every byte and every path follows from a seed, the workload's name and the scale, so that two machines measure with the
same data.
"""

from __future__ import annotations

import binascii
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

KIB = 1024
MIB = 1024 * KIB
SEED = "compare-1"

Manifest = dict[str, bytes]
"""The SHA-256 of every file, by its path in the folder."""


@dataclass(frozen=True)
class Workload:
    """Data of one kind, and the steps that are measured with it, in their order."""

    name: str
    what: str
    make: Callable[[Path, Random, float], None]
    steps: tuple[str, ...]


def seeded(*parts: object) -> Random:
    """The random numbers that belong to these names."""
    return Random("/".join(map(str, (SEED, *parts))))


class Prose:
    """Made-up text: about 3:1 under gzip, and without the long repeats that would flatter deduplication."""

    def __init__(self, random: Random) -> None:
        syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvw" for vowel in "aeiou"]
        words = ["".join(random.choices(syllables, k=random.randint(1, 4))) for _ in range(6000)]
        endings = (" ", " ", " ", ", ", ".\n")
        self.phrases = [
            " ".join(random.choices(words, k=random.choice((1, 1, 2, 3)))) + random.choice(endings) for _ in range(8000)
        ]
        self.weights = list(accumulate((rank + 8) ** -0.9 for rank in range(len(self.phrases))))

    def write(self, random: Random, size: int) -> bytes:
        """So many bytes of it."""
        text = ""
        while len(text) < size:
            text += "".join(random.choices(self.phrases, cum_weights=self.weights, k=size // 9 + 8))
        return text[:size].encode()


def make_small(root: Path, random: Random, scale: float) -> None:
    """Text files with sizes as notes and sources have them: median 4 KiB, a few large."""
    prose = Prose(random)
    folders = [root]
    # Those that others may be in: no path has more than six folders.
    shallow = [root]
    for number in range(max(4, round(1000 * scale))):
        folder = random.choice(shallow[-50:]) / f"{random.choice(('notes', 'src', 'docs', 'mail', 'data'))}-{number:04}"
        folder.mkdir()
        folders.append(folder)
        if len(folder.relative_to(root).parts) < 6:
            shallow.append(folder)
    for number in range(max(40, round(20_000 * scale))):
        size = min(2 * MIB, max(64, int(random.lognormvariate(8.32, 1.14))))
        name = f"f{number:05}.{random.choice(('txt', 'md', 'py', 'csv'))}"
        (random.choice(folders) / name).write_bytes(prose.write(random, size))
    remove_empty_folders(root)


def remove_empty_folders(root: Path) -> None:
    """Not all tools copy empty folders, and that is not what is compared here."""
    for folder, _, _ in os.walk(root, topdown=False):
        if not os.listdir(folder):
            os.rmdir(folder)


def make_flat(root: Path, random: Random, scale: float) -> None:
    """Text files of 1 KiB in one folder."""
    prose = Prose(random)
    for number in range(max(40, round(10_000 * scale))):
        (root / f"f{number:05}.txt").write_bytes(prose.write(random, KIB))


def make_photos(root: Path, random: Random, scale: float) -> None:
    """Files of 2 MiB that nothing makes smaller, 50 in a folder."""
    for number in range(max(3, round(300 * scale))):
        album = root / f"album-{number // 50:02}"
        album.mkdir(exist_ok=True)
        (album / f"img-{number:04}.jpg").write_bytes(random.randbytes(2 * MIB))


def make_big(root: Path, random: Random, scale: float) -> None:
    """One file: 16 KiB of noise and 48 KiB of hexadecimal digits in turn; gzip leaves three quarters of it."""
    with open(root / "big.bin", "wb") as file:
        for _ in range(max(4 * MIB, round(1024 * MIB * scale)) // (64 * KIB)):
            file.write(random.randbytes(16 * KIB) + binascii.hexlify(random.randbytes(24 * KIB)))


FILES = ("first", "nothing", "change", "live", "restore")
WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("small", "20,000 text files of about 7 KiB in nested folders", make_small, FILES),
        Workload("flat", "10,000 text files of 1 KiB in one folder", make_flat, FILES),
        Workload("photos", "300 random files of 2 MiB", make_photos, FILES),
        Workload("big", "one file of 1 GiB", make_big, ("first", "nothing", "overwrite", "insert", "restore")),
    )
}


def make(workload: Workload, scale: float, root: Path) -> Manifest:
    """Writes the data into a new folder."""
    root.mkdir(parents=True)
    workload.make(root, seeded(workload.name, scale), scale)
    return manifest_of(root, frozenset())


def pick(manifest: Manifest, *tag: object) -> str:
    """One of the files."""
    return seeded("pick", *tag).choice(sorted(manifest))


def edit(file: Path, text: str) -> None:
    """As an editor saves in place: the first bytes are others, and there is a line more."""
    with open(file, "r+b") as opened:
        opened.write(text.encode()[:40].ljust(40, b"."))
        opened.seek(0, os.SEEK_END)
        opened.write(f"\n{text}\n".encode())


def overwrite(file: Path, text: str) -> None:
    """1 MiB in the middle is other bytes, saved in place."""
    size = file.stat().st_size
    with open(file, "r+b") as opened:
        opened.seek(size // 2)
        opened.write(seeded(text).randbytes(min(MIB, size // 4)))


def insert(file: Path, text: str) -> None:
    """10 bytes more near the start, saved as a new file that is renamed over the old one."""
    new = file.with_name(".saving")
    with open(file, "rb") as old, open(new, "wb") as opened:
        opened.write(old.read(4 * KIB) + seeded(text).randbytes(10))
        shutil.copyfileobj(old, opened, MIB)
    new.replace(file)


CHANGES: dict[str, Callable[[Path, str], None]] = {
    "change": edit,
    "live": edit,
    "overwrite": overwrite,
    "insert": insert,
}
"""What a step does to a file before it is measured how that reaches the other side."""


def digest(file: Path) -> bytes:
    """The SHA-256 of a file."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def files_of(root: Path, own: frozenset[str]) -> Iterator[tuple[str, Path]]:
    """All that lies in a folder and is no folder; `own` are names at its top that belong to a tool."""
    pending = [root]
    while pending:
        folder = pending.pop()
        for entry in os.scandir(folder):
            if folder == root and entry.name in own:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            else:
                yield os.path.relpath(entry.path, root), Path(entry.path)


def manifest_of(root: Path, own: frozenset[str]) -> Manifest:
    """What lies in a folder."""
    return {path: digest(file) for path, file in files_of(root, own)}


def differences(root: Path, manifest: Manifest, own: frozenset[str]) -> list[str]:
    """What is not in a folder as it should be."""
    found = manifest_of(root, own)
    missing = [f"{path} is missing" for path in manifest.keys() - found.keys()]
    extra = [f"{path} is too much" for path in found.keys() - manifest.keys()]
    other = [f"{path} has other content" for path in manifest.keys() & found.keys() if manifest[path] != found[path]]
    return sorted(missing + extra + other)
