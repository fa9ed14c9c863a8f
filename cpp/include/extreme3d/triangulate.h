// triangulate.h — constrained Delaunay triangulation of a planar region with integer corners.
//
// Insertion after Lawson, constraints by edge flips after Sloan. A fast algorithm for generating
// constrained Delaunay triangulations. 1993. Orientation is exact (the coordinates' products fit a
// double), so the result is a valid triangulation whatever the input; only the Delaunay property is
// rounded.
#pragma once

#include <cstdint>
#include <vector>

#include "extreme3d/types.h"

namespace e3d {

// Coordinates have to stay within ±2^20.
struct PlanarPoint {
  std::int32_t x, y;
};

// Directed edge between two points; the region lies on its left.
struct BoundaryEdge {
  std::int32_t from, to;
};

struct PlanarTriangulation {
  std::vector<Tri> triangles;     // of the region, counter-clockwise
  std::vector<int> broken_edges;  // boundary edges that cross or touch others; then no triangles
};

// Triangulates the region enclosed by closed loops of boundary edges, with all points as vertices.
// Throws std::invalid_argument if a coordinate or an index is out of range.
PlanarTriangulation triangulate_region(View<const PlanarPoint> points,
                                       View<const BoundaryEdge> boundary);

}  // namespace e3d
