// zipper.cu — overlap removal, clipping, numbering and stitching on the device.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "extreme3d/cuda/scan.h"
#include "extreme3d/cuda/zipper.h"
#include "extreme3d/parallel.h"
#include "extreme3d/triangulate.h"
#include "strip.h"

namespace e3d::cuda {
namespace {

constexpr int kNone = -1;
constexpr int kSides = 2;  // seen by the camera; hidden, sewn in the image of its mirror image

// Corners and edges of a polygon of n corners, edge k from corner k to k + 1: bits say which edges
// are listed, and a list names each corner where it first appears.
E3D_HD inline bool touches(int edges, int corner, int n) {
  return (edges >> corner & 1) || (edges >> (corner + n - 1) % n & 1);
}

// How many of the `claimed` corners the polygon's edges name before `corner`; all with corner n.
E3D_HD inline int named_before(int edges, int claimed, int corner, int n) {
  int named = 0, count = 0;
  for (int k = 0; k < n; ++k) {
    if (!(edges >> k & 1)) continue;
    for (int e = 0; e < 2; ++e) {
      const int c = (k + e) % n;
      if (c == corner) return count;
      if (!(named >> c & 1) && (claimed >> c & 1)) ++count;
      named |= 1 << c;
    }
  }
  return count;
}

E3D_HD inline int bits_of(int edges) {
  return (edges & 1) + (edges >> 1 & 1) + (edges >> 2 & 1) + (edges >> 3 & 1);
}

E3D_HD inline int corner(Tri t, int k) { return k == 0 ? t.v0 : k == 1 ? t.v1 : t.v2; }

// Views of everything that stays, and of the buffers between kernels.
struct Maps {
  View<const Tri> faces, neighbors, mirror_faces;  // neighbors: across v_k -> v_k+1
  View<const int> mirror, mirror_face;
  CsrView faces_around;
  int width, height, n_dense;

  View<int> pixels;               // (F,) pixels of each face, far below 0 with a hole
  View<PlanarPoint> corners;      // (V,)
  View<std::uint8_t> usable;      // (V,)
  View<std::uint8_t> candidate;   // (2 F,) of each side, before islands are dropped
  View<std::uint8_t> covered;     // (2 F,)
  View<std::uint8_t> cell;        // (2 H W,) full cells: 1, or 2 to be cut falling
  View<std::int32_t> count, sum;  // what each item adds to each list, and the sums before it

  // Lists in the order of their items. Cells and faces are the items of strips, side by side.
  E3D_HD int n_vertices() const { return mirror.n; }
  E3D_HD int n_faces() const { return faces.n; }
  E3D_HD int n_pixels() const { return width * height; }
  E3D_HD int n_items() const { return n_pixels() + n_faces(); }
  E3D_HD int edges_at() const { return 0; }
  E3D_HD int points_at() const { return edges_at() + kSides * n_items(); }
  E3D_HD int vertices_at() const { return points_at() + kSides * n_items(); }
  E3D_HD int faces_at() const { return vertices_at() + n_vertices() + kSides * n_dense; }
  E3D_HD int cells_at(int side) const { return faces_at() + n_faces() + side * n_pixels(); }
  E3D_HD int end() const { return cells_at(kSides); }

  E3D_HD int sum_between(int from, int to) const { return sum[to] - sum[from]; }

  E3D_HD bool is_covered(int side, int f) const { return covered[side * n_faces() + f]; }
  E3D_HD bool is_replaced(int f) const {
    const int g = mirror_face[f];
    return is_covered(0, f) || (g != kNone && is_covered(1, g));
  }
  // Edges of a covered face with nothing covered on their other side.
  E3D_HD int border_edges(int side, int f) const {
    if (!is_covered(side, f)) return 0;
    int edges = 0;
    for (int k = 0; k < 3; ++k) {
      const int g = corner(neighbors[f], k);
      if (g == kNone || !is_covered(side, g)) edges |= 1 << k;
    }
    return edges;
  }
  // The face whose border edges name v first, and its corner there.
  E3D_HD int first_face(int side, int v, int* at) const {
    for (int i = faces_around.offsets[v]; i < faces_around.offsets[v + 1]; ++i) {
      const int f = faces_around.indices[i];
      const int k = faces[f].v0 == v ? 0 : faces[f].v1 == v ? 1 : 2;
      if (!touches(border_edges(side, f), k, 3)) continue;
      *at = k;
      return f;
    }
    return kNone;
  }
  // Corners of the face that its border edges are the first to name.
  E3D_HD int claimed_by_face(int side, int f, int edges) const {
    int claimed = 0, at = 0;
    for (int k = 0; k < 3; ++k)
      if (touches(edges, k, 3) && first_face(side, corner(faces[f], k), &at) == f)
        claimed |= 1 << k;
    return claimed;
  }

  E3D_HD bool full(int side, int x, int y) const {
    if (x < 0 || y < 0 || x >= width || y >= height) return false;
    return cell[side * n_pixels() + y * width + x];
  }
  // Edges of a full cell to one that is not. Corners clockwise (y up) from (x, y).
  E3D_HD int open_edges(int side, int x, int y) const {
    if (!full(side, x, y)) return 0;
    return int{!full(side, x, y - 1)} | int{!full(side, x + 1, y)} << 1 |
           int{!full(side, x, y + 1)} << 2 | int{!full(side, x - 1, y)} << 3;
  }
  // The cell whose open edges name pixel (x, y) first, row by row, and its corner there.
  E3D_HD int first_cell(int side, int x, int y, int* at) const {
    constexpr int kCorners[4] = {2, 3, 1, 0};
    for (int i = 0; i < 4; ++i) {
      const int cx = x - 1 + i % 2, cy = y - 1 + i / 2;
      if (!touches(open_edges(side, cx, cy), kCorners[i], 4)) continue;
      *at = kCorners[i];
      return cy * width + cx;
    }
    return kNone;
  }
  E3D_HD static int corner_x(int x, int k) { return x + (k == 1 || k == 2); }
  E3D_HD static int corner_y(int y, int k) { return y + (k >= 2); }
  E3D_HD int claimed_by_cell(int side, int x, int y, int edges) const {
    int claimed = 0, at = 0;
    for (int k = 0; k < 4; ++k)
      if (touches(edges, k, 4) &&
          first_cell(side, corner_x(x, k), corner_y(y, k), &at) == y * width + x)
        claimed |= 1 << k;
    return claimed;
  }

  // Numbers of points among those of their side.
  E3D_HD int point_of_pixel(int side, int x, int y) const {
    int at = 0;
    const int c = first_cell(side, x, y, &at), cx = c % width, cy = c / width;
    const int edges = open_edges(side, cx, cy);
    const int first = points_at() + side * n_items();
    return sum_between(first, first + c) +
           named_before(edges, claimed_by_cell(side, cx, cy, edges), at, 4);
  }
  E3D_HD int point_of_vertex(int side, int v) const {
    int at = 0;
    const int f = first_face(side, v, &at), edges = border_edges(side, f);
    const int first = points_at() + side * n_items();
    return sum_between(first, first + n_pixels() + f) +
           named_before(edges, claimed_by_face(side, f, edges), at, 3);
  }

  // Vertex of S of a corner of a patch: a vertex of R, or n_vertices() + a vertex of D.
  E3D_HD int vertex_of_corner(int side, int c) const {
    const int n = n_vertices();
    const int i = c >= n ? c + side * n_dense : side == 0 ? c : mirror[c];
    return sum_between(vertices_at(), vertices_at() + i);
  }
};

// The strips to be filled, of the seen side, then of the hidden one. In one buffer of fixed
// capacity that the host gets as a whole where it has to fill them.
struct Letter {
  View<std::int32_t> counts;
  View<BoundaryEdge> edges;    // between points of their side
  View<PlanarPoint> points;    //
  View<int> corner_of_point;   // vertex of R, or n_vertices() + vertex of D
  View<std::uint8_t> covered;  // (2 F,)
};
// Edges and points of the seen side, of both; vertices of S; its faces that are not of strips.
enum LetterCount { kSeenEdges, kAllEdges, kSeenPoints, kAllPoints, kVertices, kFixedFaces };
constexpr int kLetterCounts = 8;

// Strips filled, by the device or by the host.
struct Answer {
  View<std::int32_t> counts;
  View<Tri> triangles;  // corners, of the seen strip, then of the hidden one
};
// Triangles of the seen strip, of both; whether they are valid; vertices and faces of S.
enum AnswerCount { kSeenTriangles, kAllTriangles, kValid, kMeshVertices, kMeshFaces };
constexpr int kAnswerCounts = 5;

// What the device needs to fill the strips.
struct Strips {
  StripGrid grid;
  View<std::int32_t> owned;    // triangles that each edge lists, and the sums before it
  View<std::int32_t> before;   //
  View<Tri> triangles;         // kOwned of each edge, in points
  View<VertexPair> chords;     // in vertices of R, of the seen side < 0: ~a, ~b
  View<std::uint32_t> status;  // chords, sum of fingerprints, defects
};
// Defects of the grid, and of what was found with it.
enum StripStatus { kChords, kFingerprints, kDefects, kLateDefects };
constexpr int kStripStatus = 4;
constexpr int kOwned = 24;  // triangles of a fan whose first corner has the lowest number
constexpr int kFan = 128;   // triangles of a fan
// One thread in so many searches: searches part ways, and there are more threads than edges.
constexpr int kThreadsPerFan = 8;

// Rows of a struct one after the other in one buffer, or its size.
struct Carver {
  std::uint8_t* base;
  std::size_t bytes = 0;
  template <class T>
  View<T> take(std::size_t n) {
    const std::size_t at = bytes;
    bytes += (n * sizeof(T) + 15) / 16 * 16;
    return {base ? reinterpret_cast<T*>(base + at) : nullptr, static_cast<int>(n)};
  }
};

std::size_t carve(std::uint8_t* base, int capacity, int n_faces, Letter& letter) {
  Carver carver{base};
  letter.counts = carver.take<std::int32_t>(kLetterCounts);
  letter.edges = carver.take<BoundaryEdge>(capacity);
  letter.points = carver.take<PlanarPoint>(capacity);
  letter.corner_of_point = carver.take<int>(capacity);
  letter.covered = carver.take<std::uint8_t>(std::size_t(kSides) * n_faces);
  return carver.bytes;
}

std::size_t carve(std::uint8_t* base, int capacity, Answer& answer) {
  Carver carver{base};
  answer.counts = carver.take<std::int32_t>(kAnswerCounts);
  answer.triangles = carver.take<Tri>(capacity);
  return carver.bytes;
}

// Host memory that the device copies to and from without a stop.
class PinnedBuffer {
 public:
  explicit PinnedBuffer(std::size_t bytes) {
#if defined(E3D_CUDA)
    void* p = nullptr;
    check(cudaMallocHost(&p, bytes), "cudaMallocHost");
    data_ = static_cast<std::uint8_t*>(p);
#else
    data_ = static_cast<std::uint8_t*>(::operator new(bytes));
#endif
    std::memset(data_, 0, bytes);
  }
  ~PinnedBuffer() {
#if defined(E3D_CUDA)
    cudaFreeHost(data_);
#else
    ::operator delete(data_);
#endif
  }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  std::uint8_t* data() const { return data_; }

 private:
  std::uint8_t* data_;
};

// === What is covered ===

E3D_KERNEL pixels_kernel(Maps m, ZipperArrays in) {
  const int i = thread_index();
  if (i >= m.n_pixels() || in.triangle[i] < 0) return;
  atomic_add(&m.pixels[in.triangle[i]], pixel_weight(in.vertex_of_pixel[i]));
}

E3D_KERNEL corners_kernel(Maps m, ZipperArrays in) {
  const int v = thread_index();
  if (v >= m.n_vertices()) return;
  const Camera camera{in.pinhole[0], in.pinhole[1], in.pinhole[2],
                      in.pinhole[3], m.width,       m.height};
  m.usable[v] = in.observed[v] &&
                is_dense_around({m.pixels.data, m.n_faces()}, m.faces_around, v) &&
                corner_in_image(camera, in.foundation_in_camera[v], &m.corners[v]);
}

E3D_KERNEL seen_kernel(Maps m) {
  const int f = thread_index();
  if (f >= m.n_faces()) return;
  const Tri t = m.faces[f];
  m.candidate[f] = m.usable[t.v0] && m.usable[t.v1] && m.usable[t.v2] &&
                   turns_left(m.corners[t.v0], m.corners[t.v1], m.corners[t.v2]);
}

E3D_KERNEL hidden_kernel(Maps m, View<const std::uint8_t> recovered) {
  const int f = thread_index();
  if (f >= m.n_faces()) return;
  const int g = m.mirror_face[f];
  std::uint8_t hidden = 0;
  if (m.is_covered(0, f) && g != kNone && !m.is_covered(0, g)) {
    const Tri t = m.faces[g];
    hidden = recovered[t.v0] || recovered[t.v1] || recovered[t.v2];
  }
  m.candidate[m.n_faces() + f] = hidden;
}

// Each face goes from neighbour to neighbour until it has seen enough of its island.
E3D_HD inline bool on_large_island(View<const Tri> neighbors, const std::uint8_t* candidate,
                                   int f) {
  int island[kMinIsland], size = 1;
  island[0] = f;
  for (int head = 0; head < size; ++head) {
    const Tri around = neighbors[island[head]];
    for (int k = 0; k < 3; ++k) {
      const int g = corner(around, k);
      if (g == kNone || !candidate[g]) continue;
      bool found = false;
      for (int i = 0; i < size; ++i) found |= island[i] == g;
      if (found) continue;
      island[size++] = g;
      if (size == kMinIsland) return true;
    }
  }
  return false;
}

E3D_KERNEL islands_kernel(Maps m, int side) {
  const int f = thread_index();
  if (f >= m.n_faces()) return;
  const std::uint8_t* candidate = m.candidate.data + side * m.n_faces();
  m.covered[side * m.n_faces() + f] = candidate[f] && on_large_island(m.neighbors, candidate, f);
}

// === Clipping ===

E3D_HD inline bool has_vertex(const Maps& m, const ZipperArrays& in, int side, int i) {
  const int f = in.triangle[i], d = in.vertex_of_pixel[i];
  return f >= 0 && d >= 0 && m.is_covered(side, f) && (side == 0 || in.reflected_defined[d]);
}

E3D_KERNEL cells_kernel(Maps m, ZipperArrays in) {
  const int item = thread_index();
  if (item >= kSides * m.n_pixels()) return;
  const int side = item / m.n_pixels(), i = item % m.n_pixels(), w = m.width;
  std::uint8_t cell = 0;
  if (i % w + 1 < w && i / w + 1 < m.height && has_vertex(m, in, side, i) &&
      has_vertex(m, in, side, i + 1) && has_vertex(m, in, side, i + w) &&
      has_vertex(m, in, side, i + w + 1)) {
    const auto d = [&](int j) { return in.dense[in.vertex_of_pixel[j]]; };
    cell = cut_falling(d(i), d(i + 1), d(i + w), d(i + w + 1)) ? 2 : 1;
  }
  m.cell[item] = cell;
}

// Each border edge clears the cells near it; threads may clear one twice.
E3D_KERNEL clip_kernel(Maps m) {
  const int item = thread_index();
  if (item >= kSides * m.n_faces()) return;
  const int side = item / m.n_faces(), f = item % m.n_faces();
  const int edges = m.border_edges(side, f);
  for (int k = 0; k < 3; ++k) {
    if (!(edges >> k & 1)) continue;
    const PlanarPoint a = m.corners[corner(m.faces[f], k)];
    const PlanarPoint b = m.corners[corner(m.faces[f], (k + 1) % 3)];
    const PixelBox box = cells_near(a, b, m.width, m.height);
    for (int y = box.y0; y <= box.y1; ++y)
      for (int x = box.x0; x <= box.x1; ++x) {
        std::uint8_t* cell = &m.cell[side * m.n_pixels() + y * m.width + x];
        const PlanarPoint lower_left = pixel_center(x, y + 1);
        if (*cell && near_cell(lower_left.x, lower_left.y, a, b)) *cell = 0;
      }
  }
}

// === Numbers ===

// What cells, faces and vertices of R add to the lists. The part of D is 0 before.
E3D_KERNEL count_kernel(Maps m, ImageView<const int> vertex_of_pixel) {
  int item = thread_index();
  if (item >= kSides * m.n_items() + m.n_vertices()) return;
  if (item >= kSides * m.n_items()) {  // R keeps corners of faces that stay and of its borders
    const int v = item - kSides * m.n_items();
    int unused = 0;
    bool kept =
        m.first_face(0, v, &unused) != kNone || m.first_face(1, m.mirror[v], &unused) != kNone;
    for (int i = m.faces_around.offsets[v]; !kept && i < m.faces_around.offsets[v + 1]; ++i)
      kept = !m.is_replaced(m.faces_around.indices[i]);
    m.count[m.vertices_at() + v] = kept;
    if (v == 0) m.count[m.end()] = 0;  // so that the sums end with a total
    return;
  }
  const int side = item / m.n_items(), i = item % m.n_items();
  int edges = 0, claimed = 0, points = 0;
  if (i < m.n_pixels()) {
    const int x = i % m.width, y = i / m.width;
    const int d = vertex_of_pixel[i];
    const bool full = m.full(side, x, y);
    m.count[m.cells_at(side) + i] = full;
    if (d >= 0 &&
        (full || m.full(side, x - 1, y) || m.full(side, x, y - 1) || m.full(side, x - 1, y - 1)))
      m.count[m.vertices_at() + m.n_vertices() + side * m.n_dense + d] = 1;
    edges = m.open_edges(side, x, y);
    if (edges) claimed = m.claimed_by_cell(side, x, y, edges);
    points = named_before(edges, claimed, 4, 4);
  } else {
    const int f = i - m.n_pixels();
    if (side == 0) m.count[m.faces_at() + f] = !m.is_replaced(f);
    edges = m.border_edges(side, f);
    if (edges) claimed = m.claimed_by_face(side, f, edges);
    points = named_before(edges, claimed, 3, 3);
  }
  m.count[m.edges_at() + item] = bits_of(edges);
  m.count[m.points_at() + item] = points;
}

E3D_KERNEL letter_kernel(Maps m, ImageView<const int> vertex_of_pixel, Letter letter) {
  const int item = thread_index();
  if (item >= kSides * m.n_items()) return;
  const int side = item / m.n_items(), i = item % m.n_items();
  if (item == 0) {
    const int seen = m.n_items(), all = kSides * m.n_items();
    letter.counts[kSeenEdges] = m.sum_between(m.edges_at(), m.edges_at() + seen);
    letter.counts[kAllEdges] = m.sum_between(m.edges_at(), m.edges_at() + all);
    letter.counts[kSeenPoints] = m.sum_between(m.points_at(), m.points_at() + seen);
    letter.counts[kAllPoints] = m.sum_between(m.points_at(), m.points_at() + all);
    letter.counts[kVertices] = m.sum_between(m.vertices_at(), m.faces_at());
    letter.counts[kFixedFaces] =
        m.sum_between(m.faces_at(), m.cells_at(0)) + 2 * m.sum_between(m.cells_at(0), m.end());
  }
  if (i >= m.n_pixels())
    letter.covered[side * m.n_faces() + i - m.n_pixels()] = m.is_covered(side, i - m.n_pixels());
  int edge_at = m.sum_between(m.edges_at(), m.edges_at() + item);
  const int last = m.sum_between(m.edges_at(), m.edges_at() + item + 1);
  if (edge_at == last) return;
  const int side_at = m.sum_between(m.points_at(), m.points_at() + side * m.n_items());
  const auto put_point = [&](int p, PlanarPoint position, int corner_of_point) {
    if (side_at + p >= letter.points.n) return;
    letter.points[side_at + p] = position;
    letter.corner_of_point[side_at + p] = corner_of_point;
  };
  const auto put_edge = [&](int from, int to) {
    if (edge_at < letter.edges.n) letter.edges[edge_at] = {from, to};
    ++edge_at;
  };
  if (i < m.n_pixels()) {
    const int x = i % m.width, y = i / m.width;
    const int edges = m.open_edges(side, x, y);
    for (int k = 0; k < 4; ++k) {
      if (!(edges >> k & 1)) continue;
      const int ax = m.corner_x(x, k), ay = m.corner_y(y, k), j = (k + 1) % 4;
      const int a = m.point_of_pixel(side, ax, ay);
      put_edge(a, m.point_of_pixel(side, m.corner_x(x, j), m.corner_y(y, j)));
      put_point(a, pixel_center(ax, ay), m.n_vertices() + vertex_of_pixel(ax, ay));
    }
  } else {
    const int f = i - m.n_pixels(), edges = m.border_edges(side, f);
    for (int k = 0; k < 3; ++k) {
      if (!(edges >> k & 1)) continue;
      const int from = corner(m.faces[f], k);
      const int a = m.point_of_vertex(side, from);
      put_edge(a, m.point_of_vertex(side, corner(m.faces[f], (k + 1) % 3)));
      put_point(a, m.corners[from], from);
    }
  }
}

E3D_KERNEL vertices_kernel(Maps m, ZipperArrays in, ZipperedArrays out) {
  const int item = thread_index();
  const int n = m.n_vertices(), all = n + kSides * m.n_dense;
  if (item >= all || !m.count[m.vertices_at() + item]) return;
  const int to = m.sum_between(m.vertices_at(), m.vertices_at() + item);
  if (to >= out.vertices.n) return;
  const bool sparse = item < n, reflected = item >= n + m.n_dense;
  const int i = sparse ? item : reflected ? item - n - m.n_dense : item - n;
  int unused = 0;
  out.vertices[to] = sparse ? in.sparse[i] : reflected ? in.reflected[i] : in.dense[i];
  out.source[to] = static_cast<std::uint8_t>(sparse      ? VertexSource::kSparse
                                             : reflected ? VertexSource::kReflected
                                                         : VertexSource::kDense);
  out.index[to] = i;
  out.seam[to] = sparse && (m.first_face(0, i, &unused) != kNone ||
                            m.first_face(1, m.mirror[i], &unused) != kNone);
}

// === Strips ===

E3D_HD inline int side_of_edge(const Letter& letter, int e) {
  return e >= letter.counts[kSeenEdges];
}

E3D_KERNEL segments_kernel(Letter letter, Strips strips) {
  const int e = thread_index();
  const StripGrid& grid = strips.grid;
  if (e == 0 && std::max(letter.counts[kAllEdges], letter.counts[kAllPoints]) > letter.edges.n)
    atomic_add(&strips.status[kDefects], 1u);
  if (e >= std::min(letter.counts[kAllEdges], letter.edges.n)) return;
  const int side = side_of_edge(letter, e), first = side == 0 ? 0 : letter.counts[kSeenPoints];
  const int from = first + letter.edges[e].from, to = first + letter.edges[e].to;
  if (std::max(from, to) >= letter.points.n) return;
  const PlanarPoint a = letter.points[from], b = letter.points[to];
  grid.segments[e] = {a, b, from, to};
  for (int y = grid.row(std::max(a.y, b.y)); y <= grid.row(std::min(a.y, b.y)); ++y)
    for (int x = grid.column(std::min(a.x, b.x)); x <= grid.column(std::max(a.x, b.x)); ++x) {
      const int bucket = (side * grid.rows + y) * grid.columns + x;
      const int at = atomic_add(&grid.counts[bucket], 1);
      if (at < kBucketRoom)
        grid.entries[bucket * kBucketRoom + at] = e;
      else
        atomic_add(&strips.status[kDefects], 1u);
    }
}

// The triangles around the start of each edge, from the edge to the next that comes in. Each is met
// at its three corners, and listed at the one with the lowest number. The fans fit together if all
// triangles are met three times, which the sum of their fingerprints tells, and then they fill what
// the edges enclose.
E3D_KERNEL fans_kernel(Maps m, Letter letter, Strips strips) {
  const int e = thread_index() / kThreadsPerFan;
  if (thread_index() % kThreadsPerFan != 0 || e >= letter.edges.n) return;
  strips.owned[e] = 0;
  if (e == 0) strips.owned[letter.edges.n] = 0;
  if (e >= letter.counts[kAllEdges] || strips.status[kDefects] > 0) return;
  const int side = side_of_edge(letter, e);
  const StripGrid& grid = strips.grid;
  const Segment s = grid.segments[e];
  const StripPoint p{s.from, s.a};
  StripPoint q{s.to, s.b};
  int owned = 0;
  std::uint32_t fingerprints = 0;
  bool closed = false, defect = is_broken(grid, side, s);
  for (int i = 0; i < kFan && !closed && !defect; ++i) {
    const StripPoint r = apex(grid, side, p, q);
    if (r.id < 0) break;
    const bool lists = p.id < q.id && p.id < r.id;
    if (lists && owned < kOwned) strips.triangles[e * kOwned + owned] = {p.id, q.id, r.id};
    owned += lists;
    fingerprints += fingerprint(p.id, q.id, r.id) * (lists ? 1u - 3u : 1u);
    closed = has_edge(grid, side, r, p);
    const int a = letter.corner_of_point[p.id], b = letter.corner_of_point[r.id];
    if (!closed && p.id < r.id && std::max(a, b) < m.n_vertices()) {
      const int at = static_cast<int>(atomic_add(&strips.status[kChords], 1u));
      if (at < strips.chords.n)
        strips.chords[at] = side == 0 ? VertexPair{~a, ~b} : VertexPair{m.mirror[a], m.mirror[b]};
      else
        defect = true;
    }
    q = r;
  }
  strips.owned[e] = owned;
  if (!closed || defect || owned > kOwned) atomic_add(&strips.status[kLateDefects], 1u);
  atomic_add(&strips.status[kFingerprints], fingerprints);
}

// A chord between vertices of R that an edge elsewhere joins already would get four faces.
E3D_HD inline bool is_doubled(const Maps& m, const Strips& strips, int n_chords, int a, int b,
                              int side) {
  for (int i = m.faces_around.offsets[a]; i < m.faces_around.offsets[a + 1]; ++i) {
    const int f = m.faces_around.indices[i];
    const Tri t = m.faces[f];
    if (t.v0 != b && t.v1 != b && t.v2 != b) continue;
    if (side == 0 ? !m.is_covered(0, f) : !m.is_replaced(f)) return true;
    // a border edge of the seen strip
    const int k = t.v0 == a ? 0 : t.v1 == a ? 1 : 2;
    const int edge = corner(t, (k + 1) % 3) == b ? k : (k + 2) % 3;
    if (side == 1 && (m.border_edges(0, f) >> edge & 1)) return true;
  }
  for (int i = 0; side == 1 && i < n_chords; ++i) {
    const VertexPair other = strips.chords[i];
    if ((~other.a == a && ~other.b == b) || (~other.a == b && ~other.b == a)) return true;
  }
  return false;
}

E3D_KERNEL chords_kernel(Maps m, Strips strips) {
  const int i = thread_index();
  const int n = std::min(static_cast<int>(strips.status[kChords]), strips.chords.n);
  if (i >= n) return;
  const VertexPair c = strips.chords[i];
  const int side = c.a >= 0;
  if (is_doubled(m, strips, n, side ? c.a : ~c.a, side ? c.b : ~c.b, side))
    atomic_add(&strips.status[kLateDefects], 1u);
}

E3D_KERNEL answer_kernel(Letter letter, Strips strips, Answer answer) {
  const int e = thread_index();
  if (e >= letter.edges.n) return;
  const int all_edges = std::min(letter.counts[kAllEdges], letter.edges.n);
  const int seen_edges = std::min(letter.counts[kSeenEdges], letter.edges.n);
  const int all = strips.before[all_edges];
  const bool valid = strips.status[kDefects] == 0 && strips.status[kLateDefects] == 0 &&
                     strips.status[kFingerprints] == 0 && all <= answer.triangles.n;
  if (e == 0) {
    answer.counts[kSeenTriangles] = strips.before[seen_edges];
    answer.counts[kAllTriangles] = all;
    answer.counts[kValid] = valid;
  }
  if (!valid || e >= all_edges) return;
  const auto corner_of = [&](int p) { return letter.corner_of_point[p]; };
  for (int i = 0; i < strips.owned[e]; ++i) {
    const Tri t = strips.triangles[e * kOwned + i];
    answer.triangles[strips.before[e] + i] = {corner_of(t.v0), corner_of(t.v1), corner_of(t.v2)};
  }
}

// === Faces: what stays of R, then of each side the strip and the cells ===

E3D_KERNEL faces_kernel(Maps m, ImageView<const int> vertex_of_pixel, Answer answer, View<Tri> out,
                        View<std::int32_t> counts) {
  const int item = thread_index();
  const int stay = m.sum_between(m.faces_at(), m.cells_at(0));
  const int seen = answer.counts[kSeenTriangles], all = answer.counts[kAllTriangles];
  const auto strip = [&](int side) { return side == 0 ? seen : all - seen; };
  const auto cells = [&](int side) {
    return m.sum_between(m.cells_at(side), m.cells_at(side + 1));
  };
  const auto put = [&](int to, Tri t) {
    if (to < out.n) out[to] = t;
  };
  // a reflection turns triangles over
  const auto put_corners = [&](int to, int side, Tri t) {
    const int a = m.vertex_of_corner(side, t.v0), b = m.vertex_of_corner(side, t.v1);
    const int c = m.vertex_of_corner(side, t.v2);
    put(to, side == 0 ? Tri{a, b, c} : Tri{a, c, b});
  };
  const bool valid = answer.counts[kValid];
  if (item == 0) {
    const int n = valid ? m.sum_between(m.vertices_at(), m.faces_at()) : 0;
    const int n_faces = valid ? stay + strip(0) + 2 * cells(0) + strip(1) + 2 * cells(1) : 0;
    counts[0] = answer.counts[kMeshVertices] = n;
    counts[1] = answer.counts[kMeshFaces] = n_faces;
  }
  if (!valid) return;
  if (item < m.n_faces()) {
    if (!m.count[m.faces_at() + item]) return;
    put_corners(m.sum_between(m.faces_at(), m.faces_at() + item), 0, m.faces[item]);
    return;
  }
  int i = item - m.n_faces();
  if (i < kSides * m.n_pixels()) {
    const int side = i / m.n_pixels(), c = i % m.n_pixels(), w = m.width;
    const int cut = m.cell[i];
    if (!cut) return;
    const int first = stay + strip(0) + (side == 1 ? 2 * cells(0) + strip(1) : 0);
    const int to = first + 2 * m.sum_between(m.cells_at(side), m.cells_at(side) + c);
    const auto d = [&](int j) { return m.n_vertices() + vertex_of_pixel[j]; };
    const CellTriangles t = cell_triangles(d(c), d(c + 1), d(c + w), d(c + w + 1), cut == 2);
    put_corners(to, side, t.triangles[0]);
    put_corners(to + 1, side, t.triangles[1]);
    return;
  }
  i -= kSides * m.n_pixels();
  if (i >= all) return;
  const int side = i >= seen;
  put_corners(stay + i + (side == 1 ? 2 * cells(0) : 0), side, answer.triangles[i]);
}

// Room in a strip's lists: a border as long as the image is wide and high, many times over.
int strip_capacity(int width, int height) { return std::max(4096, 16 * (width + height)); }

}  // namespace

struct Zipper::Internals {
  Internals(View<const Tri> host_faces, View<const int> host_mirror, ZipperTopology&& topology,
            int width, int height, int n_dense)
      : host_topology(std::move(topology)),
        host_mirror(host_mirror.data, host_mirror.data + host_mirror.n),
        host_faces(host_faces.data, host_faces.data + host_faces.n),
        faces(host_faces.data, host_faces.n),
        mirror(host_mirror.data, host_mirror.n),
        mirror_face(host_topology.mirror_face),
        neighbors(reinterpret_cast<const Tri*>(host_topology.neighbors.data()),
                  host_topology.neighbors.size()),
        faces_around_offsets(host_topology.faces_around.offsets),
        faces_around_indices(host_topology.faces_around.indices),
        pixels(host_faces.n),
        corners(host_mirror.n),
        usable(host_mirror.n),
        candidate(std::size_t(kSides) * host_faces.n),
        covered(std::size_t(kSides) * host_faces.n),
        cell(std::size_t(kSides) * width * height),
        capacity(strip_capacity(width, height)),
        maps(make_maps(width, height, n_dense)),
        count(maps.end() + 1),
        sum(maps.end() + 1),
        scan(maps.end() + 1),
        letter_buffer(carve(nullptr, capacity, host_faces.n, letter)),
        answer_buffer(carve(nullptr, 2 * capacity, answer)),
        host_letter_buffer(letter_buffer.size()),
        host_answer_buffer(answer_buffer.size()),
        segments(capacity),
        columns((width + 1) / 2),
        rows((height + 1) / 2),
        bucket_counts(std::size_t(kSides) * columns * rows + kStripStatus),
        bucket_entries(std::size_t(kSides) * columns * rows * kBucketRoom),
        owned(capacity + 1),
        before(capacity + 1),
        owned_triangles(std::size_t(kOwned) * capacity),
        chords(capacity),
        strip_scan(capacity + 1) {
    const int buckets = kSides * columns * rows;
    strips.grid = {
        segments.view(), {bucket_counts.data(), buckets}, bucket_entries.view(), columns, rows};
    strips.owned = owned.view();
    strips.before = before.view();
    strips.triangles = owned_triangles.view();
    strips.chords = chords.view();
    strips.status = {reinterpret_cast<std::uint32_t*>(bucket_counts.data() + buckets),
                     kStripStatus};
    maps.count = count.view();
    maps.sum = sum.view();
    carve(letter_buffer.data(), capacity, host_faces.n, letter);
    carve(host_letter_buffer.data(), capacity, host_faces.n, host_letter);
    carve(answer_buffer.data(), 2 * capacity, answer);
    carve(host_answer_buffer.data(), 2 * capacity, host_answer);
  }

  Maps make_maps(int width, int height, int n_dense) const {
    Maps m{};
    m.faces = faces.cview();
    m.neighbors = neighbors.cview();
    m.mirror = mirror.cview();
    m.mirror_face = mirror_face.cview();
    m.faces_around = {faces_around_offsets.cview(), faces_around_indices.cview()};
    m.width = width;
    m.height = height;
    m.n_dense = n_dense;
    m.pixels = pixels.view();
    m.corners = corners.view();
    m.usable = usable.view();
    m.candidate = candidate.view();
    m.covered = covered.view();
    m.cell = cell.view();
    return m;
  }

  bool doubles_an_edge(const std::vector<Tri> (&patches)[kSides]) const;

  ZipperTopology host_topology;
  std::vector<int> host_mirror;
  std::vector<Tri> host_faces;
  DeviceArray<Tri> faces;
  DeviceArray<int> mirror, mirror_face;
  DeviceArray<Tri> neighbors;
  DeviceArray<std::int32_t> faces_around_offsets, faces_around_indices;
  DeviceArray<int> pixels;
  DeviceArray<PlanarPoint> corners;
  DeviceArray<std::uint8_t> usable, candidate, covered, cell;
  int capacity;
  Maps maps;
  DeviceArray<std::int32_t> count, sum;
  ExclusiveSum scan;
  Letter letter, host_letter;
  Answer answer, host_answer;
  DeviceArray<std::uint8_t> letter_buffer, answer_buffer;
  PinnedBuffer host_letter_buffer, host_answer_buffer;
  DeviceArray<Segment> segments;
  int columns, rows;
  DeviceArray<std::int32_t> bucket_counts, bucket_entries, owned, before;
  DeviceArray<Tri> owned_triangles;
  DeviceArray<VertexPair> chords;
  ExclusiveSum strip_scan;
  Strips strips{};
};

Zipper::Zipper(View<const Tri> faces, View<const int> mirror, int width, int height, int n_dense) {
  constexpr std::int64_t kMaxPixels = 1 << 25;  // numbers of all that is listed fit an int32
  if (width < 1 || height < 1 || std::int64_t(width) * height > kMaxPixels || n_dense < 0 ||
      n_dense > kMaxPixels)
    throw std::invalid_argument("Zipper: size of the image or capacity of D out of range");
  for (int f = 0; f < faces.n; ++f)
    if (min3(faces[f].v0, faces[f].v1, faces[f].v2) < 0 ||
        max3(faces[f].v0, faces[f].v1, faces[f].v2) >= mirror.n)
      throw std::invalid_argument("face " + std::to_string(f) + " names a vertex out of range");
  internals_ = std::make_unique<Internals>(faces, mirror, zipper_topology(faces, mirror), width,
                                           height, n_dense);
}

Zipper::~Zipper() = default;
Zipper::Zipper(Zipper&&) noexcept = default;
int Zipper::n_vertices() const { return internals_->maps.n_vertices(); }
int Zipper::n_faces() const { return internals_->maps.n_faces(); }
int Zipper::n_dense() const { return internals_->maps.n_dense; }
int Zipper::width() const { return internals_->maps.width; }
int Zipper::height() const { return internals_->maps.height; }

void Zipper::zip(const ZipperArrays& in, ZipperedArrays out, Stream s) const {
  const auto& h = *internals_;
  const Maps& m = h.maps;
  const int sides_of_dense = kSides * m.n_dense;
  fill_bytes(m.pixels, 0, s);
  fill_bytes(View<std::int32_t>{m.count.data + m.vertices_at() + m.n_vertices(), sides_of_dense}, 0,
             s);
  launch(pixels_kernel, m.n_pixels(), s, m, in);
  launch(corners_kernel, m.n_vertices(), s, m, in);
  launch(seen_kernel, m.n_faces(), s, m);
  launch(islands_kernel, m.n_faces(), s, m, 0);
  launch(hidden_kernel, m.n_faces(), s, m, in.recovered);
  launch(islands_kernel, m.n_faces(), s, m, 1);
  launch(cells_kernel, kSides * m.n_pixels(), s, m, in);
  launch(clip_kernel, kSides * m.n_faces(), s, m);
  launch(count_kernel, kSides * m.n_items() + m.n_vertices(), s, m, in.vertex_of_pixel);
  h.scan(h.count.cview(), h.sum.view(), s);
  launch(letter_kernel, kSides * m.n_items(), s, m, in.vertex_of_pixel, h.letter);
  launch(vertices_kernel, m.n_vertices() + sides_of_dense, s, m, in, out);

  fill_bytes(h.bucket_counts.view(), 0, s);
  launch(segments_kernel, h.capacity, s, h.letter, h.strips);
  launch(fans_kernel, kThreadsPerFan * h.capacity, s, m, h.letter, h.strips);
  launch(chords_kernel, h.strips.chords.n, s, m, h.strips);
  h.strip_scan(h.owned.cview(), h.before.view(), s);
  launch(answer_kernel, h.capacity, s, h.letter, h.strips, h.answer);
  launch(faces_kernel, m.n_faces() + kSides * m.n_pixels() + h.answer.triangles.n, s, m,
         in.vertex_of_pixel, h.answer, out.faces, out.counts);
  copy_to_host(h.host_answer.counts.data, h.answer.counts.data,
               kAnswerCounts * sizeof(std::int32_t), s);
}

std::optional<ZipperedCounts> Zipper::counts() const {
  const auto& c = internals_->host_answer.counts;
  if (!c[kValid]) return std::nullopt;
  return ZipperedCounts{c[kMeshVertices], c[kMeshFaces]};
}

// An edge that joins two vertices of R across a strip, where an edge elsewhere joins them already,
// would get four faces.
bool Zipper::Internals::doubles_an_edge(const std::vector<Tri> (&patches)[kSides]) const {
  const int n = maps.n_vertices();
  const auto& around = host_topology.faces_around;
  const auto covered = [&](int side, int f) {
    return host_letter.covered[side * maps.n_faces() + f] != 0;
  };
  const auto stays = [&](int side, int f) {
    const int g = host_topology.mirror_face[f];
    return !covered(0, f) && (side == 0 || g == kNone || !covered(1, g));
  };
  const auto any_face = [&](int a, int b, const auto& test) {  // with the edge a -> b
    for (int i = around.offsets[a]; i < around.offsets[a + 1]; ++i) {
      const int f = around.indices[i];
      for (int k = 0; k < 3; ++k)
        if (corner(host_faces[f], k) == a && corner(host_faces[f], (k + 1) % 3) == b)
          return test(f, host_topology.neighbors[f][k]);
    }
    return false;
  };
  const auto on_border = [&](int side, int a, int b) {
    const auto test = [&](int f, int g) {
      return covered(side, f) && (g == kNone || !covered(side, g));
    };
    return any_face(a, b, test) || any_face(b, a, test);
  };
  std::vector<std::uint64_t> seen_edges;
  const auto key = [](int a, int b) {
    return std::uint64_t(std::min(a, b)) << 32 | std::uint64_t(std::max(a, b));
  };
  for (int side = 0; side < kSides; ++side) {
    for (const Tri& t : patches[side])
      for (int k = 0; k < 3; ++k) {
        const int a = corner(t, k), b = corner(t, (k + 1) % 3);
        if (a >= n || b >= n) continue;
        if (side == 0) seen_edges.push_back(key(a, b));
        if (on_border(side, a, b)) continue;
        const int va = side == 0 ? a : host_mirror[a], vb = side == 0 ? b : host_mirror[b];
        const auto test = [&](int f, int) { return stays(side, f); };
        if (any_face(va, vb, test) || any_face(vb, va, test)) return true;
        if (side == 1 && std::binary_search(seen_edges.begin(), seen_edges.end(), key(va, vb)))
          return true;
      }
    if (side == 0) std::sort(seen_edges.begin(), seen_edges.end());
  }
  return false;
}

std::optional<ZipperedCounts> Zipper::stitch(int threads, Stream s) const {
  const auto& h = *internals_;
  copy_to_host(h.host_letter_buffer.data(), h.letter_buffer.data(), h.letter_buffer.size(), s);
  wait(s);
  const Letter& letter = h.host_letter;
  const auto& counts = letter.counts;
  if (std::max(counts[kAllEdges], counts[kAllPoints]) > h.capacity) return std::nullopt;
  std::vector<Tri> patches[kSides];
  bool broken[kSides] = {};
  parallel_for(kSides, threads, 1, [&](int side, int) {
    const int e0 = side == 0 ? 0 : counts[kSeenEdges], p0 = side == 0 ? 0 : counts[kSeenPoints];
    const int e1 = counts[side == 0 ? kSeenEdges : kAllEdges];
    const int p1 = counts[side == 0 ? kSeenPoints : kAllPoints];
    auto strip =
        triangulate_region({letter.points.data + p0, p1 - p0}, {letter.edges.data + e0, e1 - e0});
    broken[side] = !strip.broken_edges.empty();
    patches[side] = std::move(strip.triangles);
    for (Tri& t : patches[side])
      t = {letter.corner_of_point[p0 + t.v0], letter.corner_of_point[p0 + t.v1],
           letter.corner_of_point[p0 + t.v2]};
  });
  const int seen = static_cast<int>(patches[0].size());
  const int all = seen + static_cast<int>(patches[1].size());
  if (broken[0] || broken[1] || all > h.host_answer.triangles.n || h.doubles_an_edge(patches))
    return std::nullopt;
  h.host_answer.counts[kSeenTriangles] = seen;
  h.host_answer.counts[kAllTriangles] = all;
  h.host_answer.counts[kValid] = 1;
  std::copy(patches[0].begin(), patches[0].end(), h.host_answer.triangles.data);
  std::copy(patches[1].begin(), patches[1].end(), h.host_answer.triangles.data + seen);
  return ZipperedCounts{counts[kVertices], counts[kFixedFaces] + all};
}

void Zipper::finish(ImageView<const int> vertex_of_pixel, View<Tri> faces,
                    View<std::int32_t> counts, Stream s) const {
  const auto& h = *internals_;
  const Maps& m = h.maps;
  copy_to_device(h.answer_buffer.data(), h.host_answer_buffer.data(), h.answer_buffer.size(), s);
  launch(faces_kernel, m.n_faces() + kSides * m.n_pixels() + h.answer.triangles.n, s, m,
         vertex_of_pixel, h.answer, faces, counts);
}

}  // namespace e3d::cuda
