"""Damaged copies of files, numbered so that each can be made again, and what reading them ends in.

A subject is a whole file with the function that reads it. `make(subject, number)` is pure: the same number gives the
same bytes. `outcomes` reads many mutants in a child process that is killed where it hangs, and measures its memory.
By hand: `MUTANTS=png:417 make test-slow` runs that one alone and keeps its file.
"""

import multiprocessing
import re
import resource
import struct
import traceback
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.errors import UserError

SECONDS = 20  # for one mutant, on a busy computer; a usual one takes milliseconds
MEMORY = 256 << 20  # bytes that reading a mutant may add: each of these files is small, and says so to MAX_PIXELS
NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"65536", b"007", b"0x10", b"1.0", b"Infinity")
WORDS = (
    b"",
    b"../../../etc/passwd",
    b"=1+1",
    b"\0",
    b"\xff\xfe",
    b"a,b",
    b'"',
    b"\r\n",
    b"null",
    b"{class}",
    b"rle:x#",
)


@dataclass(frozen=True)
class Subject:
    """A whole file and how it is read: the reader raises UserError, or asserts that what it got is right."""

    name: str
    file: str  # the mutant's name, with the ending that the reader expects
    data: bytes
    read: Callable[[Path], None]


@dataclass(frozen=True)
class Outcome:
    """What reading a mutant ended in; `fault` is "" where that is a sentence or a correct result."""

    subject: str
    number: int
    refused: bool
    fault: str

    def __str__(self) -> str:
        return f"{self.subject}:{self.number}: {self.fault}"


def make(subject: Subject, number: int) -> bytes:
    """The mutant of this number; number 0 is the whole file."""
    random = np.random.default_rng([zlib.crc32(subject.name.encode()), number])
    data = subject.data
    for _ in range(int(random.choice([1, 1, 1, 2, 3])) if number else 0):
        ways = [flip, cut, insert, swap, blank, repeat, edit_header, edit_cell]
        data = ways[random.integers(len(ways))](data, random)
    return data


def at(data: bytes, random: np.random.Generator) -> int:
    """A place in the file: often near its start, where the headers are, or its end."""
    size = max(1, len(data))
    span = min(size, int(random.choice([32, 256, size])))
    return int(random.integers(span)) if random.random() < 0.75 else size - 1 - int(random.integers(span))


def flip(data: bytes, random: np.random.Generator) -> bytes:
    """One to eight bytes become others."""
    spoiled = bytearray(data)
    for _ in range(int(random.integers(1, 9)) if spoiled else 0):
        spoiled[at(data, random)] = int(random.integers(256))
    return bytes(spoiled)


def cut(data: bytes, random: np.random.Generator) -> bytes:
    """The end is missing, as after a download that broke off."""
    return data[: int(random.integers(len(data) + 1))]


def insert(data: bytes, random: np.random.Generator) -> bytes:
    """Some bytes too many."""
    place = at(data, random)
    return data[:place] + random.bytes(int(random.integers(1, 65))) + data[place:]


def swap(data: bytes, random: np.random.Generator) -> bytes:
    """Two blocks have changed places."""
    length = int(random.integers(1, max(2, len(data) // 8)))
    one, other = sorted((at(data, random), at(data, random)))
    other = max(other, one + length)
    return data[:one] + data[other : other + length] + data[one + length : other] + data[one : one + length] + data[
        other + length :
    ]  # fmt: skip


def blank(data: bytes, random: np.random.Generator) -> bytes:
    """A block of zeros or ones, as a disk leaves it."""
    place, length = at(data, random), int(random.choice([4, 64, 4096]))
    end = min(len(data), place + length)
    return data[:place] + (b"\0", b"\xff")[random.integers(2)] * (end - place) + data[end:]


def repeat(data: bytes, random: np.random.Generator) -> bytes:
    """A part comes twice, or a thousand times."""
    place, length, times = at(data, random), int(random.choice([1, 16, 256])), int(random.choice([1, 1, 1000]))
    return data[:place] + data[place : place + length] * times + data[place:]


def edit_cell(data: bytes, random: np.random.Generator) -> bytes:
    """A number or a word of a text becomes one that somebody could type."""
    tokens = list(re.finditer(rb"-?\d+(?:\.\d+)?|[A-Za-z_]{2,}", data[:20_000]))
    if not tokens:
        return flip(data, random)
    match = tokens[random.integers(len(tokens))]
    choices = NUMBERS if match[0][:1] in b"-0123456789" and random.random() < 0.7 else WORDS
    return data[: match.start()] + choices[random.integers(len(choices))] + data[match.end() :]


def edit_header(data: bytes, random: np.random.Generator) -> bytes:
    """Another size, length or depth in the header, checksums made right again: a lie that is well-formed."""
    spoiled, value = bytearray(data), int(random.choice([0, 1, 255, 256, 32767, 65535, 60000, 2**31 - 1, 2**32 - 1]))
    if data[:4] == b"\x89PNG" and len(data) > 33:
        place = int(random.choice([16, 20, 24, 25, 26, 27, 28]))
        spoiled[place : place + 4 if place < 24 else place + 1] = (
            struct.pack(">I", value) if place < 24 else bytes([value & 255])
        )
        spoiled[29:33] = struct.pack(">I", zlib.crc32(bytes(spoiled[12:29])))
    elif data[:2] == b"\xff\xd8" and (start := re.search(rb"\xff[\xc0-\xc2]\0", data)):
        place = start.start() + int(random.choice([5, 7]))  # height, width
        spoiled[place : place + 2] = struct.pack(">H", value & 65535)
    elif data[:3] == b"GIF" and len(data) > 10:
        frame = data.rfind(b",\0\0\0\0")
        place = int(random.choice([6, 8, frame + 5, frame + 7])) if frame > 0 else 6
        spoiled[place : place + 2] = struct.pack("<H", value & 65535)
    elif data[8:9] == b"{":  # safetensors: the header's length comes first
        spoiled[:8] = struct.pack("<Q", value)
    else:
        place = at(data, random)
        spoiled[place : place + 4] = struct.pack("<I", value)
    return bytes(spoiled)


def outcomes(subjects: Iterable[Subject], numbers: Iterable[int], folder: Path) -> list[Outcome]:
    """Read these mutants of each subject in child processes; a mutant that is at fault stays in `folder`."""
    jobs = [(subject, number) for subject in subjects for number in numbers]
    found: list[Outcome] = []
    while len(found) < len(jobs):
        found += _child(jobs[len(found) :], folder)
    return found


def _child(jobs: list[tuple[Subject, int]], folder: Path) -> list[Outcome]:
    """The outcomes up to the end, or to the first mutant that hangs or ends the process."""
    context, found = multiprocessing.get_context("fork"), []
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(jobs, folder, theirs))
    process.start()
    theirs.close()
    try:
        while len(found) < len(jobs):
            subject, number = jobs[len(found)]
            if not ours.poll(SECONDS):
                return [*found, Outcome(subject.name, number, False, f"hangs for more than {SECONDS} s")]
            try:
                found.append(ours.recv())
            except EOFError:
                process.join()
                return [*found, Outcome(subject.name, number, False, f"ends the process (exit {process.exitcode})")]
        return found
    finally:
        process.kill()
        process.join()


def _work(jobs: list[tuple[Subject, int]], folder: Path, pipe) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 8 * MEMORY,) * 2)  # for the computer's sake; MEMORY is measured
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for subject, number in jobs:
        path = folder / f"{subject.name}_{number}" / subject.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make(subject, number))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: a fork takes over its parent's
        before = _peak()
        refused, fault = _read(subject, path)
        grown = _peak() - before
        if grown > MEMORY and number:  # the whole file's reading warms up
            fault = fault or f"takes {grown >> 20} MB"
        if not fault:
            path.unlink()
            path.parent.rmdir() if not any(path.parent.iterdir()) else None
        pipe.send(Outcome(subject.name, number, refused, fault))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _read(subject: Subject, path: Path) -> tuple[bool, str]:
    """Whether it was refused, and what is wrong with how it ended."""
    try:
        subject.read(path)
    except UserError as error:
        said = str(error)
        if path.name not in said:
            return True, f"a sentence that does not name the file: {said[:200]}"
        if "Traceback" in said or "MemoryError" in said:
            return True, f"no clean sentence: {said[:200]}"
        return True, ""
    except BaseException:  # what a user would see as a traceback, whatever it is
        return False, traceback.format_exc(limit=-4)
    return False, ""
