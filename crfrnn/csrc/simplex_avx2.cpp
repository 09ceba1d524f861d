// Placing pixels on the lattice for x86-64 with AVX2, deliberately without FMA (simplex_lanes.h).
#if defined(__x86_64__)

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "lattice.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#include "simplex_lanes.h"

namespace crfrnn {
void enclosing_simplex_avx2(const Points& points, int64_t begin, int64_t end, Extent* extent) {
    enclosing_simplex_rows(points, begin, end, extent);
}
}  // namespace crfrnn

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
