// `elevate` and `enclosing_simplex` of lattice.py, for 8 pixels at a time.
//
// Included once for each instruction set, none of them with fused multiply-add: every line rounds
// as the same line of PyTorch does, so a pixel lies in the same simplex with the same weights.

namespace {

using crfrnn::Extent;
using crfrnn::MAX_DIM;
using crfrnn::Points;

constexpr int LANES = 8;
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));

// Rotate and scale R^d onto the plane sum = 0 of R^(d + 1): (d,) -> (d + 1,).
inline void elevate(const Floats* features, const float* scales, int dim, Floats* elevated) {
    Floats total = {};
    for (int j = dim; j > 0; --j) {
        const Floats scaled = features[j - 1] * scales[j - 1];
        elevated[j] = total - static_cast<float>(j) * scaled;
        total = total + scaled;
    }
    elevated[0] = total;
}

// origin counts multiples of d + 1; offset is from the origin, in multiples of d + 1 as well.
inline void place(const Floats* elevated, int size, Integers* origin, Integers* rank,
                  Floats* offset) {
    const float cell = static_cast<float>(size);
    Integers excess = {};

    // Round every coordinate to the nearest multiple of d + 1; ties go down.
    for (int i = 0; i < size; ++i) {
        const Floats x = elevated[i], cells = x / cell;
        const Integers toward_zero = __builtin_convertvector(cells, Integers);
        const Floats truncated = __builtin_convertvector(toward_zero, Floats);
        // A comparison is -1 where it holds.
        const Integers below = toward_zero + (truncated > cells);
        const Integers above = toward_zero - (truncated < cells);
        const Floats down = __builtin_convertvector(below, Floats) * cell;
        const Floats up = __builtin_convertvector(above, Floats) * cell;
        const Integers rises = up - x < x - down;
        origin[i] = rises ? above : below;
        offset[i] = x - (rises ? up : down);
        excess += origin[i];
    }

    // Rank the offsets, largest first; of two equal ones the earlier coordinate is first.
    for (int i = 0; i < size; ++i) rank[i] = excess + i;
    for (int i = 0; i < size; ++i)
        for (int j = i + 1; j < size; ++j) {
            const Integers behind = offset[i] < offset[j];
            rank[i] -= behind;
            rank[j] += behind;
        }

    // Walk back to the plane sum = 0 by moving the coordinates that were rounded worst.
    for (int i = 0; i < size; ++i) {
        const Integers wrap = (rank[i] >= size) - (rank[i] < 0);
        rank[i] += size * wrap;
        origin[i] += wrap;
        offset[i] = (elevated[i] - __builtin_convertvector(origin[i], Floats) * cell) / cell;
    }
}

void enclosing_simplex_rows(const Points& points, int64_t begin, int64_t end, Extent* extent) {
    const int dim = points.dim, size = dim + 1;
    Floats features[MAX_DIM] = {}, elevated[MAX_DIM + 1], offset[MAX_DIM + 1];
    Integers origin[MAX_DIM + 1], rank[MAX_DIM + 1], low[MAX_DIM], high[MAX_DIM];
    for (int k = 0; k < dim; ++k) {
        low[k] = Integers{} + INT32_MAX;
        high[k] = Integers{} + INT32_MIN;
    }
    *extent = Extent{};
    for (int64_t first = begin; first < end; first += LANES) {
        const int count = static_cast<int>(std::min<int64_t>(LANES, end - first));
        // The last pixel fills the lanes that are left over.
        for (int lane = 0; lane < LANES; ++lane) {
            const float* own = points.features + (first + std::min(lane, count - 1)) * dim;
            for (int k = 0; k < dim; ++k) features[k][lane] = own[k];
        }
        elevate(features, points.scales, dim, elevated);
        Integers within = Integers{} - 1;
        for (int i = 0; i < size; ++i)  // false for NaN
            within &= (elevated[i] <= points.farthest) & (elevated[i] >= -points.farthest);
        for (int lane = 0; lane < LANES; ++lane)
            if (!within[lane]) extent->too_far = true;
        if (extent->too_far) return;

        place(elevated, size, origin, rank, offset);
        for (int k = 0; k < dim; ++k) {
            origin[k] -= origin[dim];
            low[k] = origin[k] < low[k] ? origin[k] : low[k];
            high[k] = origin[k] > high[k] ? origin[k] : high[k];
        }
        for (int lane = 0; lane < count; ++lane) {
            const int64_t pixel = first + lane;
            int8_t* ranks = points.rank + pixel * size;
            float by_rank[MAX_DIM + 1];
            for (int i = 0; i < size; ++i) {
                const int32_t r = rank[i][lane];
                ranks[i] = static_cast<int8_t>(r);
                by_rank[r] = offset[i][lane];
            }
            // Weight of remainder k: the gap between the offsets at ranks d - k and d + 1 - k.
            float* weights = points.weights + pixel * size;
            weights[0] = by_rank[dim] - (by_rank[0] - 1.0f);
            for (int k = 1; k < size; ++k) weights[k] = by_rank[dim - k] - by_rank[dim + 1 - k];
            for (int k = 0; k < dim; ++k) points.digits[pixel * dim + k] = origin[k][lane];
        }
    }
    for (int k = 0; k < dim; ++k) {
        extent->low[k] = INT32_MAX;
        extent->high[k] = INT32_MIN;
        for (int lane = 0; lane < LANES; ++lane) {
            extent->low[k] = std::min(extent->low[k], low[k][lane]);
            extent->high[k] = std::max(extent->high[k], high[k][lane]);
        }
    }
}

}  // namespace
