"""The plain sequential count that the jobs must agree with: the same functions, one after the other, no Kafka."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from processor.demo.corpus import Corpus, Count, Piece, Totals, digest_line


class PlainCount:
    """Counts in a thread of the demo's own process while the workers do the same through Kafka."""

    def __init__(self, corpus: Corpus, pieces: Sequence[Piece], rounds: int) -> None:
        self._corpus = corpus
        self._pieces = pieces
        self._rounds = rounds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="plain-count", daemon=True)
        self.words: dict[str, Count] = {}
        """By the id of the piece's job."""
        self.totals = Totals()
        self.complete = False

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Give up, complete or not."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    @staticmethod
    def total(lines: int) -> int:
        """What `done` comes to in the end: counting the words takes about as long as walking over the lines."""
        return 2 * lines

    def done(self, lines: int) -> int:
        """How far it is, in lines."""
        return self.totals.lines + round(lines * len(self.words) / max(1, len(self._pieces)))

    def _run(self) -> None:
        for piece in self._pieces:
            if self._stop.is_set():
                return
            self.words[piece.id] = self._corpus.count(piece)
        for line in self._corpus.lines(self._corpus.starts(), None):
            if line.completes and self._stop.is_set():
                return
            digest_line(self.totals, line.text, self._rounds)
        self.complete = True
