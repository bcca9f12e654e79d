"""What is kept of failed attempts: all of them as long as there is room, and always how it began and how it ended."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.failures import BUDGET, brief, error_info, failed, remembered
from processor.errors import HandlerMistake
from processor.job import ErrorInfo, Failure

quick = settings(max_examples=150, derandomize=True, deadline=None)


def failure(attempt: int, message: str = "no", traceback: str = "") -> Failure:
    return Failure("builtins.ValueError", message, traceback, "f1", attempt, "w-1", 1_000 + attempt)


def life(failures: list[Failure], budget: int = BUDGET) -> list[Failure]:
    """The failures of a life, one after the other."""
    kept: list[Failure] = []
    for one in failures:
        kept = remembered(kept, one, budget)
    return kept


def size(failures: list[Failure]) -> int:
    return sum(len("".join(map(str, one[:4])).encode()) + len(one.worker) for one in failures)


def test_the_first_is_kept_whole() -> None:
    assert remembered([], failure(1, traceback="T")) == [failure(1, traceback="T")]


def test_the_same_traceback_stands_once_with_the_last() -> None:
    kept = life([failure(attempt, traceback="the same") for attempt in (1, 2, 3)])
    assert [one.traceback for one in kept] == ["", "", "the same"]
    assert [one.attempt for one in kept] == [1, 2, 3]


def test_another_traceback_leaves_the_one_before_alone() -> None:
    kept = life([failure(1, traceback="here"), failure(2, traceback="there")])
    assert [one.traceback for one in kept] == ["here", "there"]


def test_older_tracebacks_go_first() -> None:
    kept = life([failure(attempt, traceback=f"{attempt}" * 400) for attempt in range(1, 5)], budget=1_200)
    assert kept[-1].traceback == "4" * 400
    assert kept[0].traceback == ""
    assert [one.attempt for one in kept] == [1, 2, 3, 4]


def test_the_middle_goes_last() -> None:
    kept = life([failure(attempt, message="m" * 50) for attempt in range(1, 200)], budget=2_000)
    assert kept[0].attempt == 1
    assert kept[-1].attempt == 199
    assert 2 < len(kept) < 199


def test_two_huge_failures_are_cut_and_both_are_there() -> None:
    kept = life([failure(1, "a" * 10**6, "b" * 10**6), failure(2, "c" * 10**6, "d" * 10**6)])
    assert [one.attempt for one in kept] == [1, 2]
    assert size(kept) <= BUDGET


texts = st.text(max_size=300)


@quick
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=30), st.integers(4_000, 20_000))
def test_however_a_life_fails_its_record_stays_small(errors: list[tuple[str, str]], budget: int) -> None:
    failures = [failure(at, message, trace) for at, (message, trace) in enumerate(errors, 1)]
    kept = life(failures, budget)
    assert size(kept) <= budget
    assert kept[0].attempt == 1
    assert kept[-1] == failures[-1] or kept[-1]._replace(traceback=failures[-1].traceback) == failures[-1]
    assert [one.attempt for one in kept] == sorted({one.attempt for one in kept}), "in order, each once"


def raised(error: BaseException) -> ErrorInfo:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001  (any error may be told)
        return error_info(caught)


def test_the_fingerprint_is_of_the_place_and_not_of_the_values() -> None:
    assert raised(ValueError("order 1")).fingerprint == raised(ValueError("order 2")).fingerprint
    assert raised(ValueError("order 1")).fingerprint != raised(KeyError("order 1")).fingerprint

    def elsewhere() -> ErrorInfo:
        try:
            raise ValueError("order 1")
        except ValueError as caught:
            return error_info(caught)

    assert elsewhere().fingerprint != raised(ValueError("order 1")).fingerprint


def test_an_error_whose_own_code_raises_is_told_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    info = raised(Mute())
    assert info.kind.endswith("Mute")
    assert isinstance(info.message, str)


def test_a_hint_of_ours_comes_along() -> None:
    assert "look there" in raised(HandlerMistake("gone", hint="look there")).message


def test_a_status_names_the_place_instead_of_the_traceback() -> None:
    info = raised(ValueError("x"))
    short = brief(info)
    assert "Traceback" in info.traceback
    assert "Traceback" not in short.traceback
    assert short._replace(traceback="") == info._replace(traceback="")


def test_an_error_becomes_a_failure_of_its_attempt() -> None:
    info = ErrorInfo("k", "m", "t", "f")
    assert failed(info, attempt=3, worker="w", at=9) == Failure("k", "m", "t", "f", 3, "w", 9)
