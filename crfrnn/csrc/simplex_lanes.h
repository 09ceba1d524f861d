// `elevate` and `enclosing_simplex` of filtering/simplex.py, for 16 pixels at a time.
//
// Included once for each instruction set, none of them with fused multiply-add: every line rounds
// as the same line of PyTorch does, so a pixel lies in the same simplex with the same weights.

namespace {

using crfrnn::Extent;
using crfrnn::MAX_DIM;
using crfrnn::Points;

constexpr int LANES = 16;
typedef float Floats[MAX_DIM + 1][LANES];
typedef int32_t Integers[MAX_DIM + 1][LANES];

// Rotate and scale R^d onto the plane sum = 0 of R^(d + 1).
inline void elevate(const float* features, const float* scales, int dim, Floats elevated) {
    float total[LANES] = {};
    for (int j = dim; j > 0; --j)
        for (int lane = 0; lane < LANES; ++lane) {
            const float scaled = features[(j - 1) * LANES + lane] * scales[j - 1];
            elevated[j][lane] = total[lane] - static_cast<float>(j) * scaled;
            total[lane] = total[lane] + scaled;
        }
    for (int lane = 0; lane < LANES; ++lane) elevated[0][lane] = total[lane];
}

// origin counts multiples of d + 1; by_rank holds the weights before their difference is taken.
inline void place(const Floats elevated, int size, Integers origin, Integers rank,
                  Floats by_rank) {
    const float cell = static_cast<float>(size);
    Floats offset;
    int32_t excess[LANES] = {};

    // Round every coordinate to the nearest multiple of d + 1; ties go down.
    for (int i = 0; i < size; ++i)
        for (int lane = 0; lane < LANES; ++lane) {
            const float x = elevated[i][lane];
            const float below = std::floor(x / cell), above = std::ceil(x / cell);
            const float down = below * cell, up = above * cell;
            const bool rises = up - x < x - down;
            origin[i][lane] = static_cast<int32_t>(rises ? above : below);
            offset[i][lane] = x - (rises ? up : down);
            excess[lane] += origin[i][lane];
        }

    // Rank the offsets, largest first; of two equal ones the earlier coordinate is first.
    for (int i = 0; i < size; ++i)
        for (int lane = 0; lane < LANES; ++lane) rank[i][lane] = excess[lane];
    for (int i = 0; i < size; ++i)
        for (int j = i + 1; j < size; ++j)
            for (int lane = 0; lane < LANES; ++lane) {
                const int32_t behind = offset[i][lane] < offset[j][lane];
                rank[i][lane] += behind;
                rank[j][lane] += 1 - behind;
            }

    // Walk back to the plane sum = 0 by moving the coordinates that were rounded worst.
    for (int i = 0; i < size; ++i)
        for (int lane = 0; lane < LANES; ++lane) {
            const int32_t r = rank[i][lane];
            const int32_t wrap = (r < 0 ? 1 : 0) - (r >= size ? 1 : 0);
            rank[i][lane] = r + size * wrap;
            origin[i][lane] += wrap;
            const float moved = static_cast<float>(origin[i][lane]) * cell;
            offset[i][lane] = (elevated[i][lane] - moved) / cell;
        }
    for (int i = 0; i < size; ++i)
        for (int lane = 0; lane < LANES; ++lane) {
            // No number has no rank; the caller is told by `too_far`.
            const int32_t r = std::min(std::max(rank[i][lane], 0), size - 1);
            by_rank[r][lane] = offset[i][lane];
        }
}

void enclosing_simplex_rows(const Points& points, int64_t begin, int64_t end, Extent* extent) {
    const int dim = points.dim, size = dim + 1;
    float features[MAX_DIM * LANES];
    Floats elevated, by_rank = {};
    Integers origin, rank;
    *extent = Extent{};
    std::fill_n(extent->low, MAX_DIM, INT32_MAX);
    std::fill_n(extent->high, MAX_DIM, INT32_MIN);
    for (int64_t first = begin; first < end; first += LANES) {
        const int count = static_cast<int>(std::min<int64_t>(LANES, end - first));
        // The last pixel fills the lanes that are left over.
        for (int lane = 0; lane < LANES; ++lane) {
            const float* own = points.features + (first + std::min(lane, count - 1)) * dim;
            for (int k = 0; k < dim; ++k) features[k * LANES + lane] = own[k];
        }
        elevate(features, points.scales, dim, elevated);
        int too_far = 0;
        for (int i = 0; i < size; ++i)
            for (int lane = 0; lane < LANES; ++lane)
                too_far |= !(std::fabs(elevated[i][lane]) <= points.farthest);  // NaN as well
        if (too_far) {
            extent->too_far = true;
            return;
        }
        place(elevated, size, origin, rank, by_rank);
        for (int k = 0; k < dim; ++k)
            for (int lane = 0; lane < LANES; ++lane) {
                const int32_t digit = origin[k][lane] - origin[dim][lane];
                extent->low[k] = std::min(extent->low[k], digit);
                extent->high[k] = std::max(extent->high[k], digit);
            }
        for (int lane = 0; lane < count; ++lane) {
            const int64_t pixel = first + lane;
            // Weight of remainder k: the gap between the offsets at ranks d - k and d + 1 - k.
            float* weights = points.weights + pixel * size;
            weights[0] = by_rank[dim][lane] - (by_rank[0][lane] - 1.0f);
            for (int k = 1; k < size; ++k)
                weights[k] = by_rank[dim - k][lane] - by_rank[dim + 1 - k][lane];
            for (int i = 0; i < size; ++i)
                points.rank[pixel * size + i] = static_cast<int8_t>(rank[i][lane]);
            for (int k = 0; k < dim; ++k)
                points.digits[pixel * dim + k] = origin[k][lane] - origin[dim][lane];
        }
    }
}

}  // namespace
