// zipper.cpp — overlap removal, clipping and stitching of D, its reflection and R.
#include "extreme3d/zipper.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>

#include "extreme3d/mesh.h"
#include "extreme3d/parallel.h"
#include "extreme3d/rasterize.h"
#include "extreme3d/triangulate.h"

namespace e3d {

namespace {

constexpr int kNone = -1;
// Attempts to triangulate before a region is given up; every attempt shrinks it.
constexpr int kMaxAttempts = 32;
constexpr int kVertexGrain = 4096, kFaceGrain = 8192, kRowGrain = 32;

std::uint64_t directed_edge(int a, int b) {
  return std::uint64_t(std::uint32_t(a)) << 32 | std::uint32_t(b);
}
std::uint64_t undirected_edge(int a, int b) {
  return directed_edge(std::min(a, b), std::max(a, b));
}

// Pixels [x0, x1) x [y0, y1).
struct PixelRange {
  int x0, y0, x1, y1;
  int width() const { return x1 - x0; }
  int height() const { return y1 - y0; }
};

// That hold all vertices of D.
PixelRange range_of_vertices(ImageView<const int> vertex_of_pixel) {
  const int width = vertex_of_pixel.width, height = vertex_of_pixel.height;
  PixelRange r{width, height, 0, 0};
  for (int y = 0; y < height; ++y) {
    const int* row = &vertex_of_pixel(0, y);
    int first = 0, end = width;
    while (first < end && row[first] < 0) ++first;
    while (end > first && row[end - 1] < 0) --end;
    if (first == end) continue;
    r = {std::min(r.x0, first), std::min(r.y0, y), std::max(r.x1, end), y + 1};
  }
  return r.x1 == 0 ? PixelRange{0, 0, 0, 0} : r;
}

// Which cells of a range are full. Cell (x, y) lies between the centres of pixels (x, y) and
// (x + 1, y + 1); around those inside the range there are empty ones.
struct CellGrid {
  PixelRange range;
  int stride;
  std::vector<std::uint8_t> full;

  explicit CellGrid(PixelRange r)
      : range(r), stride(r.width() + 1), full(std::size_t(stride) * (r.height() + 1), 0) {}
  int at(int x, int y) const { return (y - range.y0 + 1) * stride + x - range.x0 + 1; }
  // a pixel is a corner of a full cell
  bool uses_pixel(int x, int y) const {
    const std::uint8_t* cell = &full[at(x, y)];
    return (cell[0] | cell[-1] | cell[-stride] | cell[-stride - 1]) != 0;
  }
};

// Calls visit(i) for each element of a mask that is 1.
template <class Visit>
void for_each_set(const std::vector<std::uint8_t>& mask, const Visit& visit) {
  const std::uint8_t *begin = mask.data(), *end = begin + mask.size();
  for (const std::uint8_t* p = begin; p < end; ++p) {
    if (!*p) p = static_cast<const std::uint8_t*>(std::memchr(p, 1, end - p));
    if (!p) return;
    visit(static_cast<int>(p - begin));
  }
}

// Edge of a covered face with nothing covered on its other side.
struct BorderEdge {
  int from, to, face;
};

// The covered faces of one side, retriangulated with the pixels inside them.
struct Sewing {
  std::vector<std::uint8_t> covered;  // (F,)
  std::vector<BorderEdge> border;
  CellGrid cells;
  std::vector<Tri> strip;  // around the cells; a corner is a vertex of R, or V + a pixel
  int attempts = 0;
};

}  // namespace

struct Zipper::Internals {
  std::vector<Tri> faces;
  std::vector<int> mirror;
  ZipperTopology topology;

  int n_vertices() const { return static_cast<int>(mirror.size()); }
  int n_faces() const { return static_cast<int>(faces.size()); }

  std::vector<std::uint8_t> covered_by_dense(const ZipperInput& input,
                                             std::vector<PlanarPoint>& corners) const;
  std::vector<std::uint8_t> covered_by_reflection(const ZipperInput& input,
                                                  const std::vector<std::uint8_t>& covered) const;
  void drop_islands(std::vector<std::uint8_t>& covered) const;
  std::vector<BorderEdge> border(const std::vector<std::uint8_t>& covered) const;
  void fill_cells(const ZipperInput& input, const std::uint8_t* usable,
                  const std::vector<PlanarPoint>& corners, Sewing& s) const;
  void sew(const ZipperInput& input, const std::uint8_t* usable,
           const std::vector<PlanarPoint>& corners, Sewing& s) const;
  template <class Visit>
  void for_each_edge_of_r(const std::vector<Tri>& strip, const Visit& visit) const;
  template <class OtherEdges>
  bool uncover_doubled_edges(Sewing& s, const OtherEdges& other_edges) const;
  ZipperedMesh assemble(const ZipperInput& input, const Sewing& seen, const Sewing& hidden,
                        int threads) const;
};

ZipperTopology zipper_topology(View<const Tri> faces, View<const int> mirror) {
  require_involution(mirror);
  ZipperTopology in;

  std::unordered_map<std::uint64_t, int> face_of_edge;
  face_of_edge.reserve(3 * faces.n);
  for (int f = 0; f < faces.n; ++f) {
    const auto v = corners_of(faces[f]);
    if (v[0] == v[1] || v[1] == v[2] || v[2] == v[0])
      throw std::invalid_argument("face " + std::to_string(f) + " names a vertex twice");
    for (int k = 0; k < 3; ++k)
      if (!face_of_edge.emplace(directed_edge(v[k], v[(k + 1) % 3]), f).second)
        throw std::invalid_argument("edge (" + std::to_string(v[k]) + ", " +
                                    std::to_string(v[(k + 1) % 3]) +
                                    ") is used twice in the same direction");
  }
  in.faces_around = vertex_faces(faces, mirror.n);
  in.neighbors.assign(faces.n, {kNone, kNone, kNone});
  in.mirror_face.assign(faces.n, kNone);
  for (int f = 0; f < faces.n; ++f) {
    const auto v = corners_of(faces[f]);
    for (int k = 0; k < 3; ++k)
      if (const auto it = face_of_edge.find(directed_edge(v[(k + 1) % 3], v[k]));
          it != face_of_edge.end())
        in.neighbors[f][k] = it->second;
    // reflection turns (v0, v1, v2) into (m0, m2, m1)
    const int m0 = mirror[v[0]], m1 = mirror[v[1]], m2 = mirror[v[2]];
    const auto it = face_of_edge.find(directed_edge(m1, m0));
    if (it == face_of_edge.end()) continue;
    const Tri& g = faces[it->second];
    if (g.v0 == m2 || g.v1 == m2 || g.v2 == m2) in.mirror_face[f] = it->second;
  }
  return in;
}

Zipper::Zipper(View<const Tri> faces, View<const int> mirror)
    : internals_(std::make_unique<Internals>()) {
  auto& in = *internals_;
  in.topology = zipper_topology(faces, mirror);
  in.faces.assign(faces.data, faces.data + faces.n);
  in.mirror.assign(mirror.data, mirror.data + mirror.n);
}

Zipper::~Zipper() = default;
Zipper::Zipper(Zipper&&) noexcept = default;
int Zipper::n_vertices() const { return internals_->n_vertices(); }
int Zipper::n_faces() const { return internals_->n_faces(); }

// Faces of R whose corners all took their position from D, where D is as dense, and that face the
// camera. Sets their corners in the image.
std::vector<std::uint8_t> Zipper::Internals::covered_by_dense(
    const ZipperInput& input, std::vector<PlanarPoint>& corners) const {
  std::vector<int> pixels(n_faces(), 0);
  for (int i = 0; i < input.triangle.width * input.triangle.height; ++i)
    if (const int f = input.triangle[i]; f >= 0)
      pixels[f] += pixel_weight(input.vertex_of_pixel[i]);
  const View<const int> pixel_view{pixels.data(), n_faces()};
  std::vector<std::uint8_t> usable(n_vertices(), 0);
  for (int v = 0; v < n_vertices(); ++v)
    usable[v] = input.observed[v] && is_dense_around(pixel_view, view(topology.faces_around), v) &&
                corner_in_image(input.camera, input.foundation_in_camera[v], &corners[v]);
  std::vector<std::uint8_t> covered(n_faces(), 0);
  for (int f = 0; f < n_faces(); ++f) {
    const auto [v0, v1, v2] = faces[f];
    covered[f] =
        usable[v0] && usable[v1] && usable[v2] && turns_left(corners[v0], corners[v1], corners[v2]);
  }
  drop_islands(covered);
  return covered;
}

// The same on the hidden side, named by their mirror images: covered faces whose mirror image was
// recovered by symmetry.
std::vector<std::uint8_t> Zipper::Internals::covered_by_reflection(
    const ZipperInput& input, const std::vector<std::uint8_t>& covered) const {
  std::vector<std::uint8_t> mirrored(n_faces(), 0);
  for_each_set(covered, [&](int f) {
    const int g = topology.mirror_face[f];
    if (g == kNone || covered[g]) return;
    const auto [v0, v1, v2] = faces[g];
    mirrored[f] = input.recovered[v0] || input.recovered[v1] || input.recovered[v2];
  });
  drop_islands(mirrored);
  return mirrored;
}

void Zipper::Internals::drop_islands(std::vector<std::uint8_t>& covered) const {
  std::vector<std::uint8_t> marks(covered.size() + 1, 0);
  std::uint8_t* const on_large = marks.data() + 1;  // of each face, and of kNone
  for_each_set(covered, [&](int seed) {
    const auto [g0, g1, g2] = topology.neighbors[seed];
    on_large[seed] |= on_large[g0] | on_large[g1] | on_large[g2];
    if (on_large[seed]) return;
    // from neighbour to neighbour, until enough of the island was seen
    std::array<int, kMinIsland> island{seed};
    int size = 1;
    bool large = false;
    for (int head = 0; head < size && !large; ++head)
      for (const int g : topology.neighbors[island[head]]) {
        if (g == kNone || !covered[g]) continue;
        if (std::find(island.begin(), island.begin() + size, g) != island.begin() + size) continue;
        island[size++] = g;
        large = on_large[g] || size == kMinIsland;
        if (large) break;
      }
    for (int i = 0; i < size; ++i) (large ? on_large : covered.data())[island[i]] = large;
  });
}

std::vector<BorderEdge> Zipper::Internals::border(const std::vector<std::uint8_t>& covered) const {
  std::vector<BorderEdge> edges;
  for_each_set(covered, [&](int f) {
    const auto v = corners_of(faces[f]);
    for (int k = 0; k < 3; ++k)
      if (const int g = topology.neighbors[f][k]; g == kNone || !covered[g])
        edges.push_back({v[k], v[(k + 1) % 3], f});
  });
  return edges;
}

// Full cells: those of covered faces, clipped against the border.
void Zipper::Internals::fill_cells(const ZipperInput& input, const std::uint8_t* usable,
                                   const std::vector<PlanarPoint>& corners, Sewing& s) const {
  CellGrid& cells = s.cells;
  const PixelRange range = cells.range;
  std::vector<std::uint8_t> above(range.width()), here(range.width());  // pixels of covered faces
  for (int y = range.y0; y < range.y1; ++y) {
    const int *triangle = &input.triangle(0, y), *vertex = &input.vertex_of_pixel(0, y);
    for (int x = range.x0; x < range.x1; ++x) {
      const int f = triangle[x], d = vertex[x];
      here[x - range.x0] = f >= 0 && d >= 0 && s.covered[f] && (!usable || usable[d]);
    }
    if (y > range.y0) {
      std::uint8_t* full = &cells.full[cells.at(range.x0, y - 1)];
      for (int i = 0; i + 1 < range.width(); ++i)
        full[i] = above[i] & above[i + 1] & here[i] & here[i + 1];
    }
    std::swap(above, here);
  }
  for (const auto& [from, to, face] : s.border) {
    const PlanarPoint a = corners[from], b = corners[to];
    const PixelBox box = cells_near(a, b, input.camera.width, input.camera.height);
    for (int y = std::max(box.y0, range.y0); y <= std::min(box.y1, range.y1 - 1); ++y)
      for (int x = std::max(box.x0, range.x0); x <= std::min(box.x1, range.x1 - 1); ++x) {
        std::uint8_t& full = cells.full[cells.at(x, y)];
        if (!full) continue;
        const PlanarPoint lower_left = pixel_center(x, y + 1);
        full = !near_cell(lower_left.x, lower_left.y, a, b);
      }
  }
}

// Clips the pixels to the covered faces, and fills the strip between them and the border. Faces
// that cannot be sewn (their border touches or crosses another in the image) are taken out of
// `covered`. usable: (N,) not 0 for vertices of D that may be used; null for all.
void Zipper::Internals::sew(const ZipperInput& input, const std::uint8_t* usable,
                            const std::vector<PlanarPoint>& corners, Sewing& s) const {
  const int n = n_vertices(), width = input.triangle.width;
  const PixelRange range = s.cells.range;
  std::vector<int> point_of_vertex(n);
  std::vector<int> point_above(range.width()), point_below(range.width());  // of pixels of two rows
  for (; s.attempts < kMaxAttempts; ++s.attempts) {
    s.strip.clear();
    s.border = border(s.covered);
    if (s.border.empty()) {
      std::fill(s.cells.full.begin(), s.cells.full.end(), 0);
      return;
    }
    fill_cells(input, usable, corners, s);

    std::vector<PlanarPoint> points;
    std::vector<int> corner_of_point, face_of_edge;
    std::vector<BoundaryEdge> edges;
    const auto point = [&](int& named, PlanarPoint at, int corner) {
      if (named == kNone) {
        named = static_cast<int>(points.size());
        points.push_back(at);
        corner_of_point.push_back(corner);
      }
      return named;
    };
    std::fill(point_below.begin(), point_below.end(), kNone);
    for (int y = range.y0; y + 1 < range.y1; ++y) {
      std::swap(point_above, point_below);
      std::fill(point_below.begin(), point_below.end(), kNone);
      const std::uint8_t* full = &s.cells.full[s.cells.at(range.x0, y)];
      const std::uint8_t *full_above = full - s.cells.stride, *full_below = full + s.cells.stride;
      for (int x = range.x0; x + 1 < range.x1; ++x) {
        const int i = x - range.x0;
        if (!full[i] || (full_above[i] & full[i + 1] & full_below[i] & full[i - 1])) continue;
        // with the strip on the left, full cells are circled clockwise (y up)
        const auto pixel_point = [&](int px, int py) {
          return point((py == y ? point_above : point_below)[px - range.x0], pixel_center(px, py),
                       n + py * width + px);
        };
        const auto circle = [&](bool closed, int xa, int ya, int xb, int yb) {
          if (closed) return;
          const int a = pixel_point(xa, ya), b = pixel_point(xb, yb);
          edges.push_back({a, b});
          face_of_edge.push_back(input.triangle(xa, ya));
        };
        circle(full_above[i], x, y, x + 1, y);
        circle(full[i + 1], x + 1, y, x + 1, y + 1);
        circle(full_below[i], x + 1, y + 1, x, y + 1);
        circle(full[i - 1], x, y + 1, x, y);
      }
    }
    std::fill(point_of_vertex.begin(), point_of_vertex.end(), kNone);
    for (const auto& [from, to, face] : s.border) {
      const int a = point(point_of_vertex[from], corners[from], from);
      const int b = point(point_of_vertex[to], corners[to], to);
      edges.push_back({a, b});
      face_of_edge.push_back(face);
    }

    const auto strip = triangulate_region({points.data(), static_cast<int>(points.size())},
                                          {edges.data(), static_cast<int>(edges.size())});
    if (strip.broken_edges.empty()) {
      s.strip.reserve(strip.triangles.size());
      for (const Tri& t : strip.triangles)
        s.strip.push_back({corner_of_point[t.v0], corner_of_point[t.v1], corner_of_point[t.v2]});
      ++s.attempts;
      return;
    }
    for (const int e : strip.broken_edges) {
      const int f = face_of_edge[e];
      s.covered[f] = 0;
      for (const int g : topology.neighbors[f])
        if (g != kNone) s.covered[g] = 0;
    }
    drop_islands(s.covered);
  }
  s.strip.clear();
  std::fill(s.covered.begin(), s.covered.end(), 0);
  std::fill(s.cells.full.begin(), s.cells.full.end(), 0);
}

// Calls visit(a, b) for each edge of a strip between vertices of R, in each triangle that has it.
template <class Visit>
void Zipper::Internals::for_each_edge_of_r(const std::vector<Tri>& strip,
                                           const Visit& visit) const {
  const int n = n_vertices();
  for (const Tri& t : strip) {
    const auto v = corners_of(t);
    for (int k = 0; k < 3; ++k)
      if (const int a = v[k], b = v[(k + 1) % 3]; a < n && b < n) visit(a, b);
  }
}

// A strip must not join two vertices of R that are joined already, else that edge would get four
// faces. Where it does, the faces around are taken out of `covered`: then true, and it is to be
// sewn again. other_edges(ends, visit): calls visit(a, b) for each edge at the vertices `ends` that
// the final mesh has without this strip.
template <class OtherEdges>
bool Zipper::Internals::uncover_doubled_edges(Sewing& s, const OtherEdges& other_edges) const {
  const int n = n_vertices();
  std::vector<std::uint64_t> edges;  // of the strip between vertices of R
  for_each_edge_of_r(s.strip, [&](int a, int b) { edges.push_back(undirected_edge(a, b)); });
  std::sort(edges.begin(), edges.end());
  // chords have two triangles of the strip, edges of its border have one
  std::vector<std::uint64_t> chords;
  std::vector<std::uint8_t> is_end(n, 0);
  std::vector<int> ends;
  for (std::size_t i = 1; i < edges.size(); ++i) {
    if (edges[i] != edges[i - 1]) continue;
    chords.push_back(edges[i]);
    for (const int v : {static_cast<int>(edges[i] >> 32), static_cast<int>(edges[i] & 0xffffffffu)})
      if (!std::exchange(is_end[v], 1)) ends.push_back(v);
  }
  std::vector<std::uint8_t> doubled;
  other_edges(ends, [&](int a, int b) {
    if (!is_end[a] || !is_end[b]) return;
    if (!std::binary_search(chords.begin(), chords.end(), undirected_edge(a, b))) return;
    doubled.resize(n, 0);
    doubled[a] = doubled[b] = 1;
  });
  if (doubled.empty()) return false;
  for (int f = 0; f < n_faces(); ++f)
    if (const auto v = corners_of(faces[f]); doubled[v[0]] || doubled[v[1]] || doubled[v[2]])
      s.covered[f] = 0;
  drop_islands(s.covered);
  return true;
}

// R without the overlap, then D, then the reflected part of D; only what is used is kept.
ZipperedMesh Zipper::Internals::assemble(const ZipperInput& input, const Sewing& seen,
                                         const Sewing& hidden, int threads) const {
  const int n = n_vertices(), width = input.triangle.width;
  const PixelRange range = seen.cells.range;
  const std::array<const Sewing*, 2> sides{&seen, &hidden};
  std::vector<std::uint8_t> replaced = seen.covered;
  for_each_set(hidden.covered, [&](int f) { replaced[topology.mirror_face[f]] = 1; });
  std::vector<std::uint8_t> on_seam(n, 0);
  for (const Tri& t : seen.strip)
    for (const int c : corners_of(t))
      if (c < n) on_seam[c] = 1;
  for (const Tri& t : hidden.strip)
    for (const int c : corners_of(t))
      if (c < n) on_seam[mirror[c]] = 1;
  const auto is_used = [&](int v) {
    bool used = on_seam[v];
    for (int k = topology.faces_around.offsets[v];
         !used && k < topology.faces_around.offsets[v + 1]; ++k)
      used = !replaced[topology.faces_around.indices[k]];
    return used;
  };

  // What each piece of the meshes adds, in the order of the result, and where.
  enum class Of { kVertices, kFaces, kRows };
  struct Piece {
    Of of;
    int side, begin, end;
    int vertex, face;  // how many, then the first
  };
  std::vector<Piece> pieces;
  const auto cut = [&](Of of, int side, int begin, int end, int size) {
    for (; begin < end; begin += size)
      pieces.push_back({of, side, begin, std::min(end, begin + size), 0, 0});
  };
  cut(Of::kVertices, 0, 0, n, kVertexGrain);
  cut(Of::kFaces, 0, 0, n_faces(), kFaceGrain);
  for (int side = 0; side < 2; ++side) cut(Of::kRows, side, range.y0, range.y1, kRowGrain);
  const auto for_each_piece = [&](const auto& body) {
    parallel_for(static_cast<int>(pieces.size()), threads, 1, [&](int i, int) { body(pieces[i]); });
  };
  std::vector<std::uint8_t> used(n);
  for_each_piece([&](Piece& piece) {
    if (piece.of == Of::kVertices)
      for (int v = piece.begin; v < piece.end; ++v) piece.vertex += used[v] = is_used(v);
    if (piece.of == Of::kFaces)
      for (int f = piece.begin; f < piece.end; ++f) piece.face += !replaced[f];
    if (piece.of == Of::kRows)
      for (int y = piece.begin; y < piece.end; ++y) {
        const CellGrid& cells = sides[piece.side]->cells;
        for (int x = range.x0; x < range.x1; ++x) {
          piece.vertex += cells.uses_pixel(x, y);
          piece.face += 2 * cells.full[cells.at(x, y)];
        }
      }
  });
  int n_vertices_out = 0, n_faces_out = 0;
  std::array<int, 2> first_of_strip{};
  for (Piece& piece : pieces) {
    const int vertex_count = piece.vertex, face_count = piece.face;
    if (piece.of == Of::kRows && piece.begin == range.y0) {
      first_of_strip[piece.side] = n_faces_out;
      n_faces_out += static_cast<int>(sides[piece.side]->strip.size());
    }
    piece.vertex = std::exchange(n_vertices_out, n_vertices_out + vertex_count);
    piece.face = std::exchange(n_faces_out, n_faces_out + face_count);
  }

  ZipperedMesh out;
  out.vertices.resize(n_vertices_out);
  out.source.resize(n_vertices_out);
  out.index.resize(n_vertices_out);
  out.seam.resize(n_vertices_out);
  out.faces.resize(n_faces_out);
  const auto sparse_id = std::make_unique_for_overwrite<int[]>(n);
  const std::size_t n_pixels = std::size_t(range.width()) * range.height();
  const auto pixel_id = std::make_unique_for_overwrite<int[]>(2 * n_pixels);
  const auto id_of_pixel = [&](int side, int x, int y) -> int& {
    return pixel_id[side * n_pixels + std::size_t(y - range.y0) * range.width() + x - range.x0];
  };
  for_each_piece([&](const Piece& piece) {
    int id = piece.vertex;
    const auto add = [&id, positions = out.vertices.data(), sources = out.source.data(),
                      indices = out.index.data(), seams = out.seam.data()](
                         Vec3 position, VertexSource source, int index, std::uint8_t seam) {
      positions[id] = position;
      sources[id] = source;
      indices[id] = index;
      seams[id] = seam;
      return id++;
    };
    if (piece.of == Of::kVertices)
      for (int v = piece.begin; v < piece.end; ++v)
        if (used[v]) sparse_id[v] = add(input.sparse[v], VertexSource::kSparse, v, on_seam[v]);
    if (piece.of != Of::kRows) return;
    const CellGrid& cells = sides[piece.side]->cells;
    const View<const Vec3> positions = piece.side == 0 ? input.dense : input.reflected;
    const VertexSource source = piece.side == 0 ? VertexSource::kDense : VertexSource::kReflected;
    for (int y = piece.begin; y < piece.end; ++y)
      for (int x = range.x0; x < range.x1; ++x) {
        if (!cells.uses_pixel(x, y)) continue;
        const int d = input.vertex_of_pixel(x, y);
        id_of_pixel(piece.side, x, y) = add(positions[d], source, d, 0);
      }
  });
  // a reflection turns triangles over
  const auto turned = [](Tri t, int side) { return side == 0 ? t : Tri{t.v0, t.v2, t.v1}; };
  for_each_piece([&](const Piece& piece) {
    Tri* face = out.faces.data() + piece.face;
    if (piece.of == Of::kFaces)
      for (int f = piece.begin; f < piece.end; ++f) {
        const auto [v0, v1, v2] = faces[f];
        if (!replaced[f]) *face++ = {sparse_id[v0], sparse_id[v1], sparse_id[v2]};
      }
    if (piece.of != Of::kRows) return;
    const CellGrid& cells = sides[piece.side]->cells;
    for (int y = piece.begin; y < piece.end; ++y)
      for (int x = range.x0; x + 1 < range.x1; ++x) {
        if (!cells.full[cells.at(x, y)]) continue;
        const int* d = &input.vertex_of_pixel(x, y);
        const bool falling = cut_falling(input.dense[d[0]], input.dense[d[1]],
                                         input.dense[d[width]], input.dense[d[width + 1]]);
        const int *id = &id_of_pixel(piece.side, x, y), *below = id + range.width();
        const auto [first, second] =
            cell_triangles(id[0], id[1], below[0], below[1], falling).triangles;
        *face++ = turned(first, piece.side);
        *face++ = turned(second, piece.side);
      }
  });
  for (int side = 0; side < 2; ++side) {
    Tri* face = out.faces.data() + first_of_strip[side];
    const auto id = [&](int c) {
      if (c >= n) return id_of_pixel(side, (c - n) % width, (c - n) / width);
      return sparse_id[side == 0 ? c : mirror[c]];
    };
    for (const Tri& t : sides[side]->strip) *face++ = turned({id(t.v0), id(t.v1), id(t.v2)}, side);
  }
  return out;
}

ZipperedMesh Zipper::zip(const ZipperInput& input, int threads) const {
  const auto& in = *internals_;
  const int n = in.n_vertices(), n_faces = in.n_faces(), n_dense = input.dense.n;
  if (input.sparse.n != n || input.foundation_in_camera.n != n || input.observed.n != n ||
      input.recovered.n != n)
    throw std::invalid_argument("zip: per-vertex arrays should have " + std::to_string(n) +
                                " rows");
  const int width = input.triangle.width, height = input.triangle.height;
  if (input.camera.width != width || input.camera.height != height)
    throw std::invalid_argument("zip: camera and triangle differ in size");
  if (input.vertex_of_pixel.width != width || input.vertex_of_pixel.height != height)
    throw std::invalid_argument("zip: triangle and vertex_of_pixel differ in shape");
  if (input.reflected.n != n_dense || input.reflected_defined.n != n_dense)
    throw std::invalid_argument("zip: dense and reflected differ in length");
  int largest_face = kNone, largest_vertex = kNone;
  for (int i = 0; i < width * height; ++i) {
    largest_face = std::max(largest_face, input.triangle[i]);
    largest_vertex = std::max(largest_vertex, input.vertex_of_pixel[i]);
  }
  if (largest_face >= n_faces || largest_vertex >= n_dense)
    throw std::invalid_argument("zip: a pixel names a face or a vertex that does not exist");

  const PixelRange range = range_of_vertices(input.vertex_of_pixel);
  std::vector<PlanarPoint> corners(n, PlanarPoint{0, 0});
  Sewing seen{in.covered_by_dense(input, corners), {}, CellGrid(range), {}};
  // sewn in the image plane of its mirror image
  const auto hidden_side = [&] {
    return Sewing{in.covered_by_reflection(input, seen.covered), {}, CellGrid(range), {}};
  };
  const std::uint8_t* const reflected = input.reflected_defined.data;

  // Each side is sewn once in nearly all photos: both at the same time, as if it were so.
  const std::vector<std::uint8_t> covered = seen.covered;
  Sewing hidden = hidden_side();
  parallel_for(2, threads, 1, [&](int side, int) {
    side == 0 ? in.sew(input, nullptr, corners, seen) : in.sew(input, reflected, corners, hidden);
  });

  const auto face_edges = [&](int v, const auto& stays, const auto& visit) {
    const CsrView faces_around = view(in.topology.faces_around);
    for (int k = faces_around.offsets[v]; k < faces_around.offsets[v + 1]; ++k) {
      const int f = faces_around.indices[k];
      if (!stays(f)) continue;
      const auto c = corners_of(in.faces[f]);
      for (int e = 0; e < 3; ++e) visit(c[e], c[(e + 1) % 3]);
    }
  };
  const auto edges_beside_seen = [&](const std::vector<int>& ends, const auto& visit) {
    for (const int v : ends) face_edges(v, [&](int f) { return !seen.covered[f]; }, visit);
  };
  while (in.uncover_doubled_edges(seen, edges_beside_seen)) in.sew(input, nullptr, corners, seen);
  if (seen.covered != covered) {
    hidden = hidden_side();
    in.sew(input, reflected, corners, hidden);
  }
  // in terms of the mirror images that are sewn here
  const auto edges_beside_hidden = [&](const std::vector<int>& ends, const auto& visit) {
    const auto visit_image = [&](int a, int b) { visit(in.mirror[a], in.mirror[b]); };
    const auto stays = [&](int f) {
      const int g = in.topology.mirror_face[f];
      return !seen.covered[f] && (g == kNone || !hidden.covered[g]);
    };
    for (const int v : ends) face_edges(in.mirror[v], stays, visit_image);
    in.for_each_edge_of_r(seen.strip, visit_image);
  };
  while (in.uncover_doubled_edges(hidden, edges_beside_hidden))
    in.sew(input, reflected, corners, hidden);
  return in.assemble(input, seen, hidden, threads);
}

}  // namespace e3d
