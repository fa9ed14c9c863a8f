// zipper.cpp — overlap removal, clipping and stitching of D, its reflection and R.
#include "extreme3d/zipper.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "extreme3d/mesh.h"
#include "extreme3d/rasterize.h"
#include "extreme3d/triangulate.h"

namespace e3d {

namespace {

constexpr int kNone = -1;
// Attempts to triangulate before a region is given up; every attempt shrinks it.
constexpr int kMaxAttempts = 32;

// Triangles of one sewn region. Corners below n_vertices are vertices of R; the others are
// n_vertices + a vertex of D.
using Patch = std::vector<Tri>;

// Undirected edges between vertices of R.
using EdgeSet = std::unordered_set<std::uint64_t>;

std::uint64_t directed_edge(int a, int b) {
  return std::uint64_t(std::uint32_t(a)) << 32 | std::uint32_t(b);
}
std::uint64_t undirected_edge(int a, int b) {
  return directed_edge(std::min(a, b), std::max(a, b));
}

// Pixels [x0, x1) x [y0, y1) that hold all vertices of D.
struct PixelRange {
  int x0, y0, x1, y1;
};

PixelRange range_of_vertices(ImageView<const int> vertex_of_pixel) {
  PixelRange r{vertex_of_pixel.width, vertex_of_pixel.height, 0, 0};
  for (int y = 0; y < vertex_of_pixel.height; ++y)
    for (int x = 0; x < vertex_of_pixel.width; ++x) {
      if (vertex_of_pixel(x, y) < 0) continue;
      r = {std::min(r.x0, x), std::min(r.y0, y), std::max(r.x1, x + 1), std::max(r.y1, y + 1)};
    }
  return r;
}

}  // namespace

struct Zipper::Internals {
  std::vector<Tri> faces;
  std::vector<int> mirror;
  ZipperTopology topology;

  int n_vertices() const { return static_cast<int>(mirror.size()); }
  int n_faces() const { return static_cast<int>(faces.size()); }

  void drop_islands(std::vector<std::uint8_t>& covered) const;
  std::vector<std::array<int, 3>> border(const std::vector<std::uint8_t>& covered) const;
  std::vector<std::uint8_t> densely_seen(const ZipperInput& input) const;
  template <class HasVertex, class OtherEdges>
  Patch sew(std::vector<std::uint8_t>& covered, const std::vector<PlanarPoint>& corners,
            const ZipperInput& input, PixelRange range, const HasVertex& has_vertex,
            const OtherEdges& other_edges) const;
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

void Zipper::Internals::drop_islands(std::vector<std::uint8_t>& covered) const {
  std::vector<std::uint8_t> seen(covered.size(), 0);
  std::vector<int> island;
  for (int seed = 0; seed < n_faces(); ++seed) {
    if (!covered[seed] || seen[seed]) continue;
    island.assign(1, seed);
    seen[seed] = 1;
    for (std::size_t head = 0; head < island.size(); ++head)
      for (const int g : topology.neighbors[island[head]])
        if (g != kNone && covered[g] && !seen[g]) {
          seen[g] = 1;
          island.push_back(g);
        }
    if (static_cast<int>(island.size()) < kMinIsland)
      for (const int f : island) covered[f] = 0;
  }
}

// Vertices around which D is at least as dense as R: half as many pixels as faces (a mesh has half
// as many vertices as faces), each with a vertex of D. Elsewhere D would only take detail away.
std::vector<std::uint8_t> Zipper::Internals::densely_seen(const ZipperInput& input) const {
  std::vector<int> pixels(n_faces(), 0), around(n_vertices(), 0);
  for (int i = 0; i < input.triangle.width * input.triangle.height; ++i) {
    const int f = input.triangle[i];
    if (f < 0) continue;
    pixels[f] += pixel_weight(input.vertex_of_pixel[i]);
  }
  for (int f = 0; f < n_faces(); ++f)
    for (const int v : corners_of(faces[f])) around[v] += 2 * pixels[f] - 1;
  std::vector<std::uint8_t> dense(n_vertices());
  std::transform(around.begin(), around.end(), dense.begin(), [](int n) { return n >= 0; });
  return dense;
}

// Edges of covered faces with nothing covered on their other side: from, to, face.
std::vector<std::array<int, 3>> Zipper::Internals::border(
    const std::vector<std::uint8_t>& covered) const {
  std::vector<std::array<int, 3>> edges;
  for (int f = 0; f < n_faces(); ++f) {
    if (!covered[f]) continue;
    const auto v = corners_of(faces[f]);
    for (int k = 0; k < 3; ++k)
      if (const int g = topology.neighbors[f][k]; g == kNone || !covered[g])
        edges.push_back({v[k], v[(k + 1) % 3], f});
  }
  return edges;
}

// Retriangulates the covered faces with the pixels inside them. Faces that cannot be sewn (their
// border touches or crosses another in the image) are taken out of `covered`.
//
// has_vertex(d): vertex d of D may be used. other_edges(v, visit): calls visit(a, b) for each edge
// at v of the final mesh that is not of this patch; a patch must not join two vertices that are
// joined already, else that edge would get four faces.
template <class HasVertex, class OtherEdges>
Patch Zipper::Internals::sew(std::vector<std::uint8_t>& covered,
                             const std::vector<PlanarPoint>& corners, const ZipperInput& input,
                             PixelRange range, const HasVertex& has_vertex,
                             const OtherEdges& other_edges) const {
  const int width = input.triangle.width, height = input.triangle.height;
  const int n = n_vertices();
  std::vector<std::uint8_t> pixel(std::size_t(width) * height);  // 1: dense vertex of the region
  std::vector<std::uint8_t> cell(pixel.size());  // between pixel (x, y) and (x + 1, y + 1): full
  std::vector<int> point_of_vertex(n), point_of_pixel(pixel.size());

  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    drop_islands(covered);
    const auto border_edges = border(covered);
    Patch patch;
    if (border_edges.empty()) return patch;

    for (int y = range.y0; y < range.y1; ++y)
      for (int x = range.x0; x < range.x1; ++x) {
        const int f = input.triangle(x, y), d = input.vertex_of_pixel(x, y);
        pixel[y * width + x] = f >= 0 && d >= 0 && covered[f] && has_vertex(d);
      }
    std::fill(cell.begin(), cell.end(), 0);
    for (int y = range.y0; y + 1 < range.y1; ++y)
      for (int x = range.x0; x + 1 < range.x1; ++x) {
        const int i = y * width + x;
        cell[i] = pixel[i] && pixel[i + 1] && pixel[i + width] && pixel[i + width + 1];
      }
    // clip: no cell may touch the border
    for (const auto& [from, to, face] : border_edges) {
      const PlanarPoint a = corners[from], b = corners[to];
      const PixelBox box = cells_near(a, b, width, height);
      for (int y = box.y0; y <= box.y1; ++y)
        for (int x = box.x0; x <= box.x1; ++x) {
          auto& full = cell[y * width + x];
          if (!full) continue;
          const PlanarPoint lower_left = pixel_center(x, y + 1);
          full = !near_cell(lower_left.x, lower_left.y, a, b);
        }
    }

    // stitch: the strip between the border of R and that of the full cells
    std::vector<PlanarPoint> points;
    std::vector<int> corner_of_point;
    std::vector<BoundaryEdge> edges;
    std::fill(point_of_vertex.begin(), point_of_vertex.end(), kNone);
    std::fill(point_of_pixel.begin() + range.y0 * width,
              point_of_pixel.begin() + std::max(range.y0, range.y1) * width, kNone);
    const auto pixel_point = [&](int x, int y) {
      int& p = point_of_pixel[y * width + x];
      if (p == kNone) {
        p = static_cast<int>(points.size());
        points.push_back(pixel_center(x, y));
        corner_of_point.push_back(n + input.vertex_of_pixel(x, y));
      }
      return p;
    };
    const auto vertex_point = [&](int v) {
      int& p = point_of_vertex[v];
      if (p == kNone) {
        p = static_cast<int>(points.size());
        points.push_back(corners[v]);
        corner_of_point.push_back(v);
      }
      return p;
    };
    const auto full = [&](int x, int y) {
      return x >= 0 && y >= 0 && x + 1 < width && y + 1 < height && cell[y * width + x];
    };
    std::vector<int> face_of_edge;
    for (int y = range.y0; y + 1 < range.y1; ++y)
      for (int x = range.x0; x + 1 < range.x1; ++x) {
        if (!cell[y * width + x]) continue;
        // with the strip on the left, full cells are circled clockwise (y up)
        const auto circle = [&](bool open, int xa, int ya, int xb, int yb) {
          if (!open) return;
          const int a = pixel_point(xa, ya), b = pixel_point(xb, yb);
          edges.push_back({a, b});
          face_of_edge.push_back(input.triangle(xa, ya));
        };
        circle(!full(x, y - 1), x, y, x + 1, y);
        circle(!full(x + 1, y), x + 1, y, x + 1, y + 1);
        circle(!full(x, y + 1), x + 1, y + 1, x, y + 1);
        circle(!full(x - 1, y), x, y + 1, x, y);
      }
    for (const auto& [from, to, face] : border_edges) {
      const int a = vertex_point(from), b = vertex_point(to);
      edges.push_back({a, b});
      face_of_edge.push_back(face);
    }

    const auto strip = triangulate_region({points.data(), static_cast<int>(points.size())},
                                          {edges.data(), static_cast<int>(edges.size())});
    if (!strip.broken_edges.empty()) {
      for (const int e : strip.broken_edges) {
        const int f = face_of_edge[e];
        covered[f] = 0;
        for (const int g : topology.neighbors[f])
          if (g != kNone) covered[g] = 0;
      }
      continue;
    }
    patch.reserve(strip.triangles.size() + 2 * std::size_t(width) * height / 4);
    for (const Tri& t : strip.triangles)
      patch.push_back({corner_of_point[t.v0], corner_of_point[t.v1], corner_of_point[t.v2]});

    // chords of the strip between vertices of R that an edge elsewhere joins already
    EdgeSet chords;
    for (const Tri& t : patch) {
      const auto v = corners_of(t);
      for (int k = 0; k < 3; ++k)
        if (v[k] < n && v[(k + 1) % 3] < n) chords.insert(undirected_edge(v[k], v[(k + 1) % 3]));
    }
    for (const auto& [from, to, face] : border_edges) chords.erase(undirected_edge(from, to));
    std::vector<std::uint8_t> doubled;
    for (const auto& [from, to, face] : border_edges)
      other_edges(from, [&](int a, int b) {
        if (point_of_vertex[a] == kNone || point_of_vertex[b] == kNone) return;
        if (!chords.contains(undirected_edge(a, b))) return;
        doubled.resize(n, 0);
        doubled[a] = doubled[b] = 1;
      });
    if (!doubled.empty()) {
      for (int f = 0; f < n_faces(); ++f)
        if (const auto v = corners_of(faces[f]); doubled[v[0]] || doubled[v[1]] || doubled[v[2]])
          covered[f] = 0;
      continue;
    }
    for (int y = range.y0; y + 1 < range.y1; ++y)
      for (int x = range.x0; x + 1 < range.x1; ++x) {
        if (!cell[y * width + x]) continue;
        const int d00 = input.vertex_of_pixel(x, y), d10 = input.vertex_of_pixel(x + 1, y);
        const int d01 = input.vertex_of_pixel(x, y + 1), d11 = input.vertex_of_pixel(x + 1, y + 1);
        for (const Tri& t : cell_triangles(n + d00, n + d10, n + d01, n + d11,
                                           cut_falling(input.dense[d00], input.dense[d10],
                                                       input.dense[d01], input.dense[d11]))
                                .triangles)
          patch.push_back(t);
      }
    return patch;
  }
  std::fill(covered.begin(), covered.end(), 0);
  return {};
}

ZipperedMesh Zipper::zip(const ZipperInput& input) const {
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
  for (int i = 0; i < width * height; ++i)
    if (input.triangle[i] >= n_faces || input.vertex_of_pixel[i] >= n_dense)
      throw std::invalid_argument("zip: pixel " + std::to_string(i) +
                                  " names a face or a vertex that does not exist");

  // overlap of R with D: faces whose corners all took their position from D, where D is as dense
  const auto dense_around = in.densely_seen(input);
  std::vector<PlanarPoint> corners(n, PlanarPoint{0, 0});
  std::vector<std::uint8_t> usable(n, 0);
  for (int v = 0; v < n; ++v) {
    if (!input.observed[v] || !dense_around[v]) continue;
    usable[v] = corner_in_image(input.camera, input.foundation_in_camera[v], &corners[v]);
  }
  std::vector<std::uint8_t> covered(n_faces, 0);
  for (int f = 0; f < n_faces; ++f) {
    const auto [v0, v1, v2] = in.faces[f];
    if (!usable[v0] || !usable[v1] || !usable[v2]) continue;
    covered[f] = turns_left(corners[v0], corners[v1], corners[v2]);
  }
  const PixelRange range = range_of_vertices(input.vertex_of_pixel);
  const auto face_edges = [&](int v, const auto& stays, const auto& visit) {
    for (int k = in.topology.faces_around.offsets[v]; k < in.topology.faces_around.offsets[v + 1];
         ++k) {
      const int f = in.topology.faces_around.indices[k];
      if (!stays(f)) continue;
      const auto c = corners_of(in.faces[f]);
      for (int e = 0; e < 3; ++e) visit(c[e], c[(e + 1) % 3]);
    }
  };
  const Patch seen = in.sew(
      covered, corners, input, range, [](int) { return true; },
      [&](int v, const auto& visit) { face_edges(v, [&](int f) { return !covered[f]; }, visit); });

  // the same on the hidden side: faces recovered by symmetry whose mirror image is covered by D,
  // sewn in the image plane of that mirror image
  std::vector<std::uint8_t> mirrored(n_faces, 0);
  for (int f = 0; f < n_faces; ++f) {
    const int g = in.topology.mirror_face[f];
    if (!covered[f] || g == kNone || covered[g]) continue;
    const auto [v0, v1, v2] = in.faces[g];
    mirrored[f] = input.recovered[v0] || input.recovered[v1] || input.recovered[v2];
  }
  std::unordered_multimap<int, int> seen_chords;  // from each vertex of R, both ways
  for (const Tri& t : seen) {
    const auto v = corners_of(t);
    for (int k = 0; k < 3; ++k)
      if (v[k] < n && v[(k + 1) % 3] < n) {
        seen_chords.emplace(v[k], v[(k + 1) % 3]);
        seen_chords.emplace(v[(k + 1) % 3], v[k]);
      }
  }
  const Patch hidden = in.sew(
      mirrored, corners, input, range, [&](int d) { return input.reflected_defined[d] != 0; },
      [&](int image, const auto& visit) {  // in terms of the mirror images that are sewn here
        const int v = in.mirror[image];
        const auto visit_image = [&](int a, int b) { visit(in.mirror[a], in.mirror[b]); };
        const auto stays = [&](int f) {
          const int g = in.topology.mirror_face[f];
          return !covered[f] && (g == kNone || !mirrored[g]);
        };
        face_edges(v, stays, visit_image);
        for (auto [c, end] = seen_chords.equal_range(v); c != end; ++c) visit_image(v, c->second);
      });

  // R without the overlap, then D, then the reflected part of D; only what is used is kept
  ZipperedMesh out;
  std::vector<std::uint8_t> replaced(n_faces, 0);
  for (int f = 0; f < n_faces; ++f) {
    if (covered[f]) replaced[f] = 1;
    if (mirrored[f]) replaced[in.topology.mirror_face[f]] = 1;
  }
  std::vector<int> sparse_id(n, kNone), dense_id(n_dense, kNone), reflected_id(n_dense, kNone);
  const auto use = [](int& id) { id = 0; };
  for (int f = 0; f < n_faces; ++f)
    if (!replaced[f])
      for (const int v : {in.faces[f].v0, in.faces[f].v1, in.faces[f].v2}) use(sparse_id[v]);
  std::vector<std::uint8_t> on_seam(n, 0);
  for (const Tri& t : seen)
    for (const int c : {t.v0, t.v1, t.v2}) {
      use(c < n ? sparse_id[c] : dense_id[c - n]);
      if (c < n) on_seam[c] = 1;
    }
  for (const Tri& t : hidden)
    for (const int c : {t.v0, t.v1, t.v2}) {
      use(c < n ? sparse_id[in.mirror[c]] : reflected_id[c - n]);
      if (c < n) on_seam[in.mirror[c]] = 1;
    }
  const auto emit = [&](std::vector<int>& ids, View<const Vec3> positions, VertexSource source) {
    for (int i = 0; i < positions.n; ++i) {
      if (ids[i] == kNone) continue;
      ids[i] = static_cast<int>(out.vertices.size());
      out.vertices.push_back(positions[i]);
      out.source.push_back(source);
      out.index.push_back(i);
      out.seam.push_back(source == VertexSource::kSparse && on_seam[i]);
    }
  };
  const std::size_t bound = std::size_t(n) + 2 * std::size_t(n_dense);
  out.vertices.reserve(bound);
  out.source.reserve(bound);
  out.index.reserve(bound);
  out.seam.reserve(bound);
  emit(sparse_id, input.sparse, VertexSource::kSparse);
  emit(dense_id, input.dense, VertexSource::kDense);
  emit(reflected_id, input.reflected, VertexSource::kReflected);

  out.faces.reserve(n_faces + seen.size() + hidden.size());
  for (int f = 0; f < n_faces; ++f)
    if (!replaced[f]) {
      const auto [v0, v1, v2] = in.faces[f];
      out.faces.push_back({sparse_id[v0], sparse_id[v1], sparse_id[v2]});
    }
  const auto seen_id = [&](int c) { return c < n ? sparse_id[c] : dense_id[c - n]; };
  for (const Tri& t : seen) out.faces.push_back({seen_id(t.v0), seen_id(t.v1), seen_id(t.v2)});
  const auto hidden_id = [&](int c) {
    return c < n ? sparse_id[in.mirror[c]] : reflected_id[c - n];
  };
  for (const Tri& t : hidden)  // a reflection turns triangles over
    out.faces.push_back({hidden_id(t.v0), hidden_id(t.v2), hidden_id(t.v1)});
  return out;
}

}  // namespace e3d
