// The separable Gaussian along one axis: the twin of filtering/separable.py.

namespace {

constexpr int TILE = 4;  // outputs along the axis that share every row they read

// `tile` consecutive outputs from row i, over one group of columns.
template <int T, class Columns>
inline void convolve_tile(const Columns& group, const float* v, const float* taps, int64_t radius,
                          int64_t size, int64_t length, int64_t i, float* out) {
    typename Columns::Sum sums[T] = {};
    const int64_t first = std::max<int64_t>(i - radius, 0);
    const int64_t last = std::min<int64_t>(i + T - 1 + radius, size - 1);
    for (int64_t j = first; j <= last; ++j) {
        const auto row = group.load_row(v + j * length);
        for (int t = 0; t < T; ++t) {
            const float tap = taps[j - i - t];
            for (int g = 0; g < Columns::blocks; ++g) sums[t].block[g] += tap * row.block[g];
        }
    }
    for (int t = 0; t < T; ++t) group.store_row(out + (i + t) * length, sums[t]);
}

// Correlate v (size, length) with taps along its first axis, over `columns` of the length.
// taps points at the middle one and reads as zero up to TILE - 1 beyond the radius.
void convolve(const float* v, const float* taps, int64_t radius, int64_t size, int64_t length,
              int64_t columns, float* out) {
    by_groups(columns, [&](auto group) {
        constexpr int tile = decltype(group)::blocks == 4 ? TILE - 1 : TILE;  // 12 sums at most
        int64_t i = 0;
        for (; i + tile <= size; i += tile)
            convolve_tile<tile>(group, v, taps, radius, size, length, i, out);
        for (; i < size; ++i) convolve_tile<1>(group, v, taps, radius, size, length, i, out);
    });
}

}  // namespace
