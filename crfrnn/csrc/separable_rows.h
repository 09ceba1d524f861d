// The separable Gaussian along one axis: the twin of filtering/separable.py.

namespace {

using crfrnn::Axis;

constexpr int TILE = 4;  // outputs along the axis that share every row they read

inline int64_t divide_up(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : -(-a / b); }
inline int64_t divide_down(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// `T` consecutive outputs of an axis, one tile after the other.
template <int T>
class Tiles {
   public:
    // Before the tile that begins with output o.
    Tiles(const Axis& axis, int64_t o)
        : axis_(axis), at_(axis.out_step * o - axis.shift),
          first_(divide_up(at_ - axis.radius, axis.in_step)),
          last_(divide_down(at_ + beyond() + axis.radius, axis.in_step)) {}

    // The next tile, over one group of columns, to rows `apart` from each other.
    template <class Columns>
    void correlate(const Columns& group, const float* v, int64_t length, float* out,
                   int64_t apart) {
        const int64_t in_step = axis_.in_step, out_step = axis_.out_step;
        // The inputs within the radius of any of the outputs.
        while (in_step * first_ < at_ - axis_.radius) ++first_;
        while (in_step * (last_ + 1) <= at_ + beyond() + axis_.radius) ++last_;
        const int64_t begin = std::max<int64_t>(first_, 0);
        int64_t count = std::min(last_, axis_.in_size - 1) - begin + 1;
        const float* taps = axis_.taps + in_step * begin - at_;
        const float* row = v + begin * length;
        typename Columns::Sum sums[T] = {};
        for (; count > 0; --count, taps += in_step, row += length) {
            float tap[T];
            for (int t = 0; t < T; ++t) tap[t] = taps[-out_step * t];
            for (int g = 0; g < Columns::blocks; ++g) {
                const auto block = load<Columns::width>(row + group.at(g));
                for (int t = 0; t < T; ++t) sums[t].block[g] += tap[t] * block;
            }
        }
        for (int t = 0; t < T; ++t) group.store_row(out + t * apart, sums[t]);
        at_ += out_step * T;
    }

   private:
    int64_t beyond() const { return axis_.out_step * (T - 1); }

    const Axis axis_;
    int64_t at_;             // of the first output, in pixels
    int64_t first_, last_;  // inputs
};

// `correlate_rows` of whole rows of a few floats, all of whose taps there are: as one line of floats.
inline void correlate_line(const Axis& axis, const float* v, int64_t length, int64_t begin,
                           int64_t end, float* out) {
    constexpr int64_t TOGETHER = 32;
    const int64_t floats = (end - begin) * length;
    v += begin * length;
    for (int64_t k = 0; k < floats; k += TOGETHER) {
        // The last floats are done with some of those before them.
        const Group<8, 4> group(std::min(k, floats - TOGETHER), floats);
        auto sum = group.zero();
        for (int64_t r = -axis.radius; r <= axis.radius; ++r)
            group.add(sum, axis.taps[r], v + r * length);
        group.store_row(out, sum);
    }
}

// Outputs [begin, end) of rows (in_size, length), over `columns` of the length, to rows `apart` from
// each other.
inline void correlate_rows(const Axis& axis, const float* v, int64_t length, int64_t columns,
                           int64_t begin, int64_t end, float* out, int64_t apart) {
    by_groups(columns, [&](auto group) {
        constexpr int tile = decltype(group)::blocks > 2 ? 3 : TILE;  // 12 sums at most
        int64_t o = begin;
        if (o + tile <= end) {
            Tiles<tile> tiles(axis, o);
            for (; o + tile <= end; o += tile)
                tiles.correlate(group, v, length, out + (o - begin) * apart, apart);
        }
        if (o < end) {
            Tiles<1> tiles(axis, o);
            for (; o < end; ++o)
                tiles.correlate(group, v, length, out + (o - begin) * apart, apart);
        }
    });
}

// `correlate_rows`, by the way that suits the length.
void correlate(const Axis& axis, const float* v, int64_t length, int64_t columns, int64_t begin,
               int64_t end, float* out, int64_t apart) {
    const int64_t inner = std::max(begin, axis.radius);
    const int64_t outer = std::min(end, axis.in_size - axis.radius);
    const bool whole = columns == length && apart == length;
    const bool steps = axis.in_step != 1 || axis.out_step != 1;
    if (steps || !whole || length >= 8 || (outer - inner) * length < 32)
        return correlate_rows(axis, v, length, columns, begin, end, out, apart);
    correlate_rows(axis, v, length, columns, begin, inner, out, apart);
    correlate_line(axis, v, length, inner, outer, out + (inner - begin) * length);
    correlate_rows(axis, v, length, columns, outer, end, out + (outer - begin) * length, apart);
}

}  // namespace
