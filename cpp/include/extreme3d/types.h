// types.h — small vectors, array views and cameras shared by host code and CUDA kernels.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#if defined(__CUDACC__)
#define E3D_HD __host__ __device__
#else
#define E3D_HD
#endif

namespace e3d {

struct Vec2 {
  float x, y;
};

struct Vec3 {
  float x, y, z;
};

E3D_HD inline Vec2 operator+(Vec2 a, Vec2 b) { return {a.x + b.x, a.y + b.y}; }
E3D_HD inline Vec2 operator-(Vec2 a, Vec2 b) { return {a.x - b.x, a.y - b.y}; }
E3D_HD inline Vec2 operator*(float s, Vec2 a) { return {s * a.x, s * a.y}; }

E3D_HD inline Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
E3D_HD inline Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
E3D_HD inline Vec3 operator-(Vec3 a) { return {-a.x, -a.y, -a.z}; }
E3D_HD inline Vec3 operator*(float s, Vec3 a) { return {s * a.x, s * a.y, s * a.z}; }
E3D_HD inline float dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
E3D_HD inline Vec3 cross(Vec3 a, Vec3 b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
E3D_HD inline float norm(Vec3 a) { return std::sqrt(dot(a, a)); }
E3D_HD inline Vec3 normalize_or_zero(Vec3 a) {
  const float n = norm(a);
  return n > 0.f ? (1.f / n) * a : Vec3{0.f, 0.f, 0.f};
}
// Mirror image in the head frame, whose plane of symmetry is x = 0.
E3D_HD inline Vec3 reflect_x(Vec3 a) { return {-a.x, a.y, a.z}; }

// Vertex indices of a triangle, counter-clockwise seen from outside.
struct Tri {
  std::int32_t v0, v1, v2;
};

// A vector whose new elements are left as they are: for what is written in full right after.
template <class T>
struct LeftAsIs : std::allocator<T> {
  template <class U>
  struct rebind {
    using other = LeftAsIs<U>;
  };
  template <class U>
  void construct(U* p) {
    ::new (static_cast<void*>(p)) U;
  }
  template <class U, class... Args>
  void construct(U* p, Args&&... args) {
    ::new (static_cast<void*>(p)) U(std::forward<Args>(args)...);
  }
};
template <class T>
using Rows = std::vector<T, LeftAsIs<T>>;

// Non-owning array of n elements; passed by value.
template <class T>
struct View {
  T* data;
  int n;
  E3D_HD T& operator[](int i) const { return data[i]; }
};

// Non-owning image, row-major, one T a pixel.
template <class T>
struct ImageView {
  T* data;
  int width, height;
  E3D_HD T& operator()(int x, int y) const { return data[y * width + x]; }
  E3D_HD T& operator[](int i) const { return data[i]; }
};

struct MeshView {
  View<const Vec3> vertices;  // (V,)
  View<const Tri> faces;      // (F,)
};

// b_from_a rigid motion: x_in_b = R x_in_a + t, R row-major.
struct Rigid {
  float R[9];
  Vec3 t;
};

E3D_HD inline Vec3 rotate(const Rigid& b_from_a, Vec3 a) {
  const float* R = b_from_a.R;
  return {R[0] * a.x + R[1] * a.y + R[2] * a.z, R[3] * a.x + R[4] * a.y + R[5] * a.z,
          R[6] * a.x + R[7] * a.y + R[8] * a.z};
}
E3D_HD inline Vec3 transform(const Rigid& b_from_a, Vec3 a) {
  return rotate(b_from_a, a) + b_from_a.t;
}
E3D_HD inline Rigid inverse(const Rigid& b_from_a) {
  const float* R = b_from_a.R;
  Rigid a_from_b{{R[0], R[3], R[6], R[1], R[4], R[7], R[2], R[5], R[8]}, {0.f, 0.f, 0.f}};
  a_from_b.t = -rotate(a_from_b, b_from_a.t);
  return a_from_b;
}

// Pinhole camera of a crop, OpenCV axes (x right, y down, z forward). Pixel (i, j) covers
// [i, i+1) × [j, j+1) in image coordinates, its centre is (i + 0.5, j + 0.5). All in pixels.
struct Camera {
  float fx, fy, cx, cy;
  int width, height;
};

E3D_HD inline Vec2 project(const Camera& c, Vec3 x_in_camera) {
  return {c.fx * x_in_camera.x / x_in_camera.z + c.cx, c.fy * x_in_camera.y / x_in_camera.z + c.cy};
}
// Point at depth z (mm along the optical axis) on the viewing ray through image position p.
E3D_HD inline Vec3 unproject(const Camera& c, Vec2 p, float z) {
  return {(p.x - c.cx) / c.fx * z, (p.y - c.cy) / c.fy * z, z};
}

}  // namespace e3d
