// The separable Gaussian along one axis: the twin of filtering/separable.py.

namespace {

constexpr int TILE = 4;  // outputs along the axis that share every row they read

// `T` consecutive outputs from row i, over one group of columns, to rows `apart` from each other.
template <int T, class Columns>
inline void convolve_tile(const Columns& group, const float* v, const float* taps, int64_t radius,
                          int64_t size, int64_t length, int64_t i, float* out, int64_t apart) {
    typename Columns::Sum sums[T] = {};
    const int64_t first = std::max<int64_t>(i - radius, 0);
    const int64_t last = std::min<int64_t>(i + T - 1 + radius, size - 1);
    for (int64_t j = first; j <= last; ++j) {
        float tap[T];
        for (int t = 0; t < T; ++t) tap[t] = taps[j - i - t];
        for (int g = 0; g < Columns::blocks; ++g) {
            const auto block = load<Columns::width>(v + j * length + group.at[g]);
            for (int t = 0; t < T; ++t) sums[t].block[g] += tap[t] * block;
        }
    }
    for (int t = 0; t < T; ++t) group.store_row(out + t * apart, sums[t]);
}

// `convolve_rows` of whole rows of a few floats, all of whose taps there are: as one line of floats.
inline void convolve_line(const float* v, const float* taps, int64_t radius, int64_t length,
                          int64_t begin, int64_t end, float* out) {
    constexpr int64_t TOGETHER = 32;
    const int64_t floats = (end - begin) * length;
    v += begin * length;
    for (int64_t k = 0; k < floats; k += TOGETHER) {
        // The last floats are done with some of those before them.
        const Group<8, 4> group(std::min(k, floats - TOGETHER), floats);
        auto sum = group.zero();
        for (int64_t r = -radius; r <= radius; ++r) group.add(sum, taps[r], v + r * length);
        group.store_row(out, sum);
    }
}

// Correlate v (size, length) with taps along its first axis, over `columns` of the length, for
// rows [begin, end), to rows `apart` from each other.
// taps points at the middle one and reads as zero up to TILE - 1 beyond the radius.
inline void convolve_rows(const float* v, const float* taps, int64_t radius, int64_t size,
                          int64_t length, int64_t columns, int64_t begin, int64_t end, float* out,
                          int64_t apart) {
    by_groups(columns, [&](auto group) {
        constexpr int tile = decltype(group)::blocks > 2 ? 3 : TILE;  // 12 sums at most
        int64_t i = begin;
        for (; i + tile <= end; i += tile)
            convolve_tile<tile>(group, v, taps, radius, size, length, i, out + (i - begin) * apart,
                                apart);
        for (; i < end; ++i)
            convolve_tile<1>(group, v, taps, radius, size, length, i, out + (i - begin) * apart,
                             apart);
    });
}

// `convolve_rows`, by the way that suits the length.
void convolve(const float* v, const float* taps, int64_t radius, int64_t size, int64_t length,
              int64_t columns, int64_t begin, int64_t end, float* out, int64_t apart) {
    const int64_t inner = std::max(begin, radius), outer = std::min(end, size - radius);
    const bool whole = columns == length && apart == length;
    if (!whole || length >= 8 || (outer - inner) * length < 32)
        return convolve_rows(v, taps, radius, size, length, columns, begin, end, out, apart);
    convolve_rows(v, taps, radius, size, length, columns, begin, inner, out, apart);
    convolve_line(v, taps, radius, length, inner, outer, out + (inner - begin) * length);
    convolve_rows(v, taps, radius, size, length, columns, outer, end,
                  out + (outer - begin) * length, apart);
}

}  // namespace
