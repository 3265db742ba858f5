import threading
import time

import pytest

from natix_lib.data.ahead import ahead


def test_results_come_in_the_order_of_the_items_whatever_takes_longer() -> None:
    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3 == 0))
        return number * number

    for threads in (1, 2, 5):
        assert list(ahead(work, range(40), threads, 7)) == [number * number for number in range(40)]


def test_no_more_items_are_taken_than_may_wait() -> None:
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    results = ahead(lambda number: number, items(), 2, 5)
    assert next(results) == 0 and len(taken) == 6
    assert next(results) == 1 and len(taken) == 7
    before = threading.active_count()
    results.close()
    assert threading.active_count() == before - 2 and len(taken) == 7


def test_items_wait_only_up_to_their_weight_together() -> None:
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    results = ahead(lambda number: number, items(), 2, 50, lambda number: 100 if number == 9 else 10, 45)
    assert next(results) == 0 and taken == [0, 1, 2, 3, 4]
    assert [next(results) for _ in range(9)] == list(range(1, 10)) and len(taken) == 10
    assert list(results) == list(range(10, 20))


def test_several_work_at_once_and_one_thread_is_that_of_who_asks() -> None:
    barrier = threading.Barrier(2, timeout=20)
    assert sorted(ahead(lambda _: barrier.wait(), range(4), 2, 4)) == [0, 0, 1, 1]
    assert set(ahead(lambda _: threading.current_thread(), range(3), 1, 4)) == {threading.current_thread()}


def test_an_error_is_raised_in_its_turn() -> None:
    results = ahead(lambda number: 1 // (number - 2), range(5), 2, 5)
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
