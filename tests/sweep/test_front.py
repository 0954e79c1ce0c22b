"""The front, what is within its noise, what a limit leaves out, and the knee."""

from __future__ import annotations

import random

from workbench.intervals import Estimate
from workbench.sweep.front import rank


def exact(*values):
    return [Estimate(value, value, value) for value in values]


def noisy(*values, by=0.1):
    return [Estimate(value, value - by, value + by) for value in values]


def states(points, holds=None):
    return list(rank(points, holds or [True] * len(points)).states)


def test_what_nothing_beats_is_on_the_front():
    points = [exact(1, 5), exact(2, 3), exact(5, 1), exact(3, 4), exact(2, 5)]
    assert states(points) == ["front", "front", "front", "dominated", "dominated"]


def test_of_equal_points_the_first_stands():
    assert states([exact(1, 1), exact(1, 1)]) == ["front", "near"]


def test_what_only_noise_tells_apart_is_near():
    assert states([noisy(1, 1), noisy(1.05, 1.15)]) == ["front", "near"]
    assert states([noisy(1, 1), noisy(1.05, 1.25)]) == ["front", "dominated"]


def test_limits_leave_out_and_do_not_dominate():
    points = [exact(1, 1), exact(2, 2), exact(3, 3)]
    assert states(points, [False, True, True]) == ["over", "front", "dominated"]
    assert rank(points, [False] * 3).knee is None


def test_three_goals():
    points = [exact(1, 2, 3), exact(3, 2, 1), exact(3, 2, 3)]
    assert states(points) == ["front", "front", "dominated"]


def test_it_is_the_front_by_its_definition():
    draw = random.Random(0)
    points = [exact(*(draw.randint(0, 9) for _ in range(3))) for _ in range(60)]
    found = states(points)
    for at, point in enumerate(points):
        beaten = any(
            all(a.value <= b.value for a, b in zip(other, point, strict=True))
            and any(a.value < b.value for a, b in zip(other, point, strict=True))
            for other in points
        )
        assert beaten == (found[at] == "dominated")


def test_the_knee_is_farthest_from_the_line_between_the_ends():
    points = [exact(0, 10), exact(1, 2), exact(5, 1.5), exact(10, 0)]
    assert rank(points, [True] * 4).knee == 1
    assert rank([exact(1, 1)], [True]).knee == 0
