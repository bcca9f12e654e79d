"""The input: every Python source file of the running interpreter's standard library, and what is counted in it.

Everything here is a plain function of the files, without a job or a broker: the handlers call it, and so does the
sequential count that checks them.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import keyword
import sysconfig
import time
import tokenize
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel

NOT_PYTHON: Literal["not Python"] = "not Python"
_INSTALLED_LATER = {"site-packages", "dist-packages", "__pycache__"}


class Piece(BaseModel):
    """A file, or one top-level definition of it."""

    path: str
    """Below the corpus' root."""
    first: int = 1
    """First line, counted from 1."""
    last: int | None = None
    """Last line; None: the file's last."""
    name: str = ""
    """Of the definition; empty for a whole file."""

    @property
    def id(self) -> str:
        """The id of its job, so that publishing it again is safe."""
        return f"{self.path}:{self.first}:{self.name}" if self.name else self.path


class Words(BaseModel):
    """Identifiers of a piece."""

    identifiers: int
    distinct: int


Count = Words | Literal["not Python"]


class Totals(BaseModel):
    """What the walk has seen so far."""

    lines: int = 0
    bytes: int = 0
    digest: str = ""
    """Of all lines in their order: one line skipped, doubled or swapped changes it."""


class Line(NamedTuple):
    """One line of the corpus."""

    number: int
    """Counted over all files, from 0."""
    text: bytes
    completes: str
    """The path of the file that ends with it, else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Source files of one folder, in a fixed order."""

    root: Path
    paths: Sequence[str]

    def files(self) -> Iterator[Piece]:
        """Every file as a piece."""
        return (Piece(path=path) for path in self.paths)

    def definitions(self, path: str) -> Iterator[Piece]:
        """The top-level functions and classes of a file; none if it does not parse."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the sources of Python themselves are warned of is not our story
                tree = ast.parse((self.root / path).read_bytes())
        except (SyntaxError, ValueError):
            return
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield Piece(path=path, first=node.lineno, last=node.end_lineno, name=node.name)

    def size(self, path: str) -> int:
        """Bytes of a file."""
        return (self.root / path).stat().st_size

    def count(self, piece: Piece) -> Count:
        """Tokenise a piece and count its identifiers."""
        try:
            lines = _lines(self.root / piece.path)[piece.first - 1 : piece.last]
            names = [
                token.string
                for token in tokenize.generate_tokens(io.StringIO("".join(lines)).readline)
                if token.type == tokenize.NAME and not keyword.iskeyword(token.string)
            ]
        except (tokenize.TokenError, SyntaxError, UnicodeDecodeError):
            return NOT_PYTHON
        return Words(identifiers=len(names), distinct=len(set(names)))

    def starts(self) -> list[int]:
        """Number of the first line of each file, and at the end the number of all lines."""
        return [0, *accumulate(len((self.root / path).read_bytes().splitlines()) for path in self.paths)]

    def lines(self, starts: Sequence[int], after: int | None) -> Iterator[Line]:
        """The lines after the one of that number, in order."""
        begin = 0 if after is None else after + 1
        for index in range(bisect_right(starts, begin) - 1, len(self.paths)):
            path = self.paths[index]
            last = starts[index + 1] - 1
            texts = (self.root / path).read_bytes().splitlines()
            skipped = max(0, begin - starts[index])
            for number, text in enumerate(texts[skipped:], starts[index] + skipped):
                yield Line(number, text, path if number == last else "")


def standard_library() -> Corpus:
    """Every Python source file of this interpreter's standard library."""
    root = Path(sysconfig.get_path("stdlib")).resolve()
    found = (path.relative_to(root) for path in root.rglob("*.py") if path.is_file())
    paths = sorted(path.as_posix() for path in found if not _INSTALLED_LATER & set(path.parts))
    return Corpus(root=root, paths=paths)


def digest_line(totals: Totals, text: bytes, rounds: int) -> None:
    """Count a line in: `rounds` hashes over the digest so far and the line."""
    value = totals.digest.encode() + text
    for _ in range(rounds):
        value = hashlib.blake2b(value, digest_size=16).digest()
    totals.digest = value.hex()
    totals.lines += 1
    totals.bytes += len(text)


def rounds_for(seconds: float, lines: int) -> int:
    """How many hashes per line make a walk over `lines` lines last about that long on this machine."""
    sample, rounds, totals = 2_000, 20, Totals()
    began = time.perf_counter()
    for _ in range(sample):
        digest_line(totals, b"    return self.digest_of(line)  # about as long as lines are", rounds)
    per_round = (time.perf_counter() - began) / (sample * rounds)
    return max(1, round(seconds / (lines * per_round)))


def choose_definitions(corpus: Corpus, seconds: float, *, sample_seconds: float = 0.5) -> list[str]:
    """Files whose definitions are counted too, so that all counting takes about `seconds` of one processor here.

    A sample of files is tokenised to learn the speed of this machine; the whole files come first, definitions take
    what is left.
    """
    stride = max(1, len(corpus.paths) // 200)
    read, began = 0, time.perf_counter()
    for path in corpus.paths[::stride]:
        corpus.count(Piece(path=path))
        read += corpus.size(path)
        if time.perf_counter() - began > sample_seconds:
            break
    speed = read / (time.perf_counter() - began)
    sizes = [corpus.size(path) for path in corpus.paths]
    left = seconds * speed - sum(sizes)
    affordable = bisect_right(list(accumulate(sizes)), left)
    return list(corpus.paths[: max(affordable, len(corpus.paths) // 20)])


@functools.lru_cache(maxsize=16)
def _lines(path: Path) -> list[str]:
    """A file's lines; kept for a moment, since its definitions come one after the other."""
    with tokenize.open(path) as source:
        return source.readlines()
