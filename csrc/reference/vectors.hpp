// Vectors of three in double, and rotations of them.
#pragma once

#include <array>
#include <cmath>

namespace sem::reference {

using Vector = std::array<double, 3>;

inline Vector vector(const double* from) { return {from[0], from[1], from[2]}; }
inline double dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
inline Vector cross(const Vector& a, const Vector& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}
inline Vector operator*(double s, const Vector& a) { return {s * a[0], s * a[1], s * a[2]}; }
inline Vector operator+(const Vector& a, const Vector& b) { return {a[0] + b[0], a[1] + b[1], a[2] + b[2]}; }
inline Vector operator-(const Vector& a, const Vector& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }
inline void add(double* to, const Vector& a) {
  for (int i = 0; i < 3; ++i) to[i] += a[i];
}

// Rodrigues' rotation about a unit axis, and what it makes of a gradient at its result.
inline Vector rotated(const Vector& v, const Vector& axis, double angle) {
  const double c = std::cos(angle), s = std::sin(angle);
  return c * v + s * cross(axis, v) + ((1 - c) * dot(axis, v)) * axis;
}
struct Rotation {
  Vector v, axis;
  double angle;
};
inline Rotation rotation_gradient(const Vector& v, const Vector& axis, double angle, const Vector& g) {
  const double c = std::cos(angle), s = std::sin(angle);
  return {c * g - s * cross(axis, g) + ((1 - c) * dot(axis, g)) * axis,
          s * cross(v, g) + (1 - c) * (dot(axis, v) * g + dot(axis, g) * v),
          dot(g, c * cross(axis, v) - s * v + (s * dot(axis, v)) * axis)};
}

}  // namespace sem::reference
