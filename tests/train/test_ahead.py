"""Draws of a thread: those of every step, in order, and what goes wrong in one is told."""

import threading

import pytest

from jaisp.train.ahead import AHEAD, ahead


def test_every_step_is_drawn_once_and_in_order():
    asked = []

    def draw(step):
        asked.append(step)
        return step, threading.current_thread() is threading.main_thread()

    assert list(ahead(draw, range(3, 9))) == [(step, False) for step in range(3, 9)]
    assert asked == list(range(3, 9))


def test_it_is_only_a_few_steps_ahead():
    asked = []
    draws = ahead(asked.append, range(100))
    next(draws)
    draws.close()
    assert len(asked) <= 1 + AHEAD


def test_an_error_is_raised_where_the_step_is_asked_for():
    def draw(step):
        if step == 2:
            raise ValueError("no such patch")
        return step

    draws = ahead(draw, range(1, 4))
    assert next(draws) == 1
    with pytest.raises(ValueError, match="no such patch"):
        next(draws)
