"""What there is to do in the demo, measured out to what this machine can do in some twenty seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from processor.demo.corpus import Corpus, Piece, choose_definitions, rounds_for, standard_library


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What there is to do."""

    corpus: Corpus
    pieces: Sequence[Piece]
    starts: Sequence[int]
    rounds: int

    @property
    def lines(self) -> int:
        """Of the walk."""
        return self.starts[-1]


def look_through(words_seconds: float, walk_seconds: float) -> Work:
    """Find the input and measure this machine."""
    corpus = standard_library()
    chosen = choose_definitions(corpus, words_seconds)
    pieces = [*corpus.files(), *(piece for path in chosen for piece in corpus.definitions(path))]
    starts = corpus.starts()
    return Work(
        corpus=corpus,
        pieces=list({piece.id: piece for piece in pieces}.values()),
        starts=starts,
        rounds=rounds_for(walk_seconds, starts[-1]),
    )
