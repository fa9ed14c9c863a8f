"""The constrained triangulation under the zipper."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extreme3d_fast import _core

SIDE = 1000


def square(low, high):
    return [(low, low), (high, low), (high, high), (low, high)]


def loop(indices):
    return [(a, b) for a, b in zip(indices, indices[1:] + indices[:1], strict=True)]


def triangulate(points, edges):
    return _core.triangulate_region(
        np.array(points, np.int32).reshape(-1, 2), np.array(edges, np.int32).reshape(-1, 2)
    )


def doubled_areas(points, triangles):
    a, b, c = np.moveaxis(np.array(points, np.int64)[triangles], 1, 0)
    return (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]


def test_square_becomes_two_counter_clockwise_triangles():
    points = square(0, SIDE)
    triangles, broken = triangulate(points, loop([0, 1, 2, 3]))
    assert len(broken) == 0
    assert sorted(doubled_areas(points, triangles)) == [SIDE**2, SIDE**2]


@given(
    st.lists(
        st.tuples(st.integers(1, SIDE - 1), st.integers(1, SIDE - 1)), max_size=60, unique=True
    )
)
@settings(max_examples=60)
def test_any_points_in_a_square_fill_its_area_with_positive_triangles(inner):
    points = square(0, SIDE) + inner
    triangles, broken = triangulate(points, loop([0, 1, 2, 3]))
    areas = doubled_areas(points, triangles)
    assert len(broken) == 0
    assert areas.min() > 0
    assert areas.sum() == 2 * SIDE**2
    assert len(triangles) == 2 * len(points) - 2 - 4  # Euler
    assert set(triangles.ravel()) == set(range(len(points)))


def test_hole_stays_open():
    points = square(0, SIDE) + square(300, 600)
    triangles, broken = triangulate(points, loop([0, 1, 2, 3]) + loop([7, 6, 5, 4]))
    assert len(broken) == 0
    assert doubled_areas(points, triangles).sum() == 2 * (SIDE**2 - 300**2)


def test_constraint_is_kept_where_delaunay_would_cross_it():
    # a thin arrow head: the short diagonal between its barbs lies outside
    points = [(0, 0), (500, 40), (1000, 0), (500, 60)]
    triangles, broken = triangulate(points, loop([0, 1, 2, 3]))
    assert len(broken) == 0
    assert doubled_areas(points, triangles).sum() == 2 * 10_000
    assert {tuple(sorted(t)) for t in triangles.tolist()} == {(0, 1, 3), (1, 2, 3)}


def test_cocircular_pixel_grid_is_triangulated():
    n = 40
    points = [(256 * x, 256 * y) for y in range(n) for x in range(n)]
    rim = [*range(n)] + [n * y + n - 1 for y in range(1, n)]
    rim += [n * (n - 1) + x for x in range(n - 2, -1, -1)] + [n * y for y in range(n - 2, 0, -1)]
    triangles, broken = triangulate(points, loop(rim))
    assert len(broken) == 0
    assert len(triangles) == 2 * (n - 1) ** 2


@pytest.mark.parametrize(
    ("points", "edges"),
    [
        (square(0, 600) + square(300, 900), loop([0, 1, 2, 3]) + loop([4, 5, 6, 7])),
        ([*square(0, 600), (300, 0)], loop([0, 1, 2, 3])),
        ([*square(0, 600), (0, 0), (0, -5)], loop([0, 1, 2, 3]) + [(4, 5), (5, 4)]),
        (square(0, 600), loop([0, 1, 2, 3])[:3]),
    ],
    ids=["crossing loops", "point on an edge", "coinciding points", "open loop"],
)
def test_impossible_boundaries_are_reported(points, edges):
    triangles, broken = triangulate(points, edges)
    assert len(triangles) == 0
    assert len(broken) > 0


def test_indices_and_coordinates_out_of_range_are_errors():
    with pytest.raises(ValueError, match="index out of range"):
        triangulate(square(0, 10), [(0, 4)])
    with pytest.raises(ValueError, match="coordinate"):
        triangulate(square(0, 2**21), loop([0, 1, 2, 3]))
