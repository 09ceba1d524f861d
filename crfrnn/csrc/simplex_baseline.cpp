// Placing pixels on the lattice with the instruction set that every machine of the platform has.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "simplex.h"

#include "simplex_lanes.h"

namespace crfrnn {
void enclosing_simplex_baseline(const Points& points, int64_t begin, int64_t end,
                                Extent* extent) {
    enclosing_simplex_rows(points, begin, end, extent);
}
}  // namespace crfrnn
