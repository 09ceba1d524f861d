// The rows of the filters: the twins of lattice.py and plain.py.

namespace {

using crfrnn::Lattice;

constexpr int64_t AHEAD = 8;         // rows between a row asked for and the one being added
constexpr int64_t SLICES_AHEAD = 4;  // pixels between one whose vertices are asked for and its sum

// Ask for a row of labels: which row comes next is a table's secret to the processor.
inline void prefetch(const float* row, int64_t labels) {
    __builtin_prefetch(row);
    __builtin_prefetch(row + labels - 1);
}

// body(size) with the number of vertices of a simplex, known to the compiler in 2 and 5 dimensions.
template <class Body>
inline void by_size(int size, const Body& body) {
    if (size == 3) return body(std::integral_constant<int, 3>());
    if (size == 6) return body(std::integral_constant<int, 6>());
    body(size);
}

// The sums of `splat` over one vertex's pixels, of the factors c to c + C - 1.
template <int C, class Columns>
inline void splat_vertex(const Columns& group, const Lattice& lattice, int64_t labels,
                         int64_t count, int64_t c, const float* factors, const float* v,
                         int64_t vertex, float* values) {
    const int64_t entries = lattice.pixels * lattice.size, stop = lattice.splat_end(vertex);
    typename Columns::Sum sums[C] = {};
    for (int64_t entry = lattice.splat_offsets[vertex]; entry < stop; ++entry) {
        if (c == 0 && entry + 2 * AHEAD < entries)
            prefetch(v + lattice.splat_pixels[entry + 2 * AHEAD] * labels, labels);
        const int64_t pixel = lattice.splat_pixels[entry];
        const float weight = lattice.splat_weights[entry];
        const auto row = group.load_row(v + pixel * labels);
        for (int k = 0; k < C; ++k) {
            const float own = factors ? weight * factors[pixel * count + c + k] : weight;
            for (int g = 0; g < Columns::blocks; ++g) sums[k].block[g] += own * row.block[g];
        }
    }
    for (int k = 0; k < C; ++k)
        group.store_row(values + (vertex * count + c + k) * labels, sums[k]);
}

// W' (factor_c v), c < count, for some of the vertices: (BN, L) -> (M + 1, count, L). The factors
// are (BN, count); null is a single 1.
void splat(const Lattice& lattice, int64_t labels, int64_t count, const float* factors,
           const float* v, float* values, int64_t begin, int64_t end) {
    by_groups_and_rows(labels, begin, end, [=](auto group, int64_t first, int64_t last) {
        for (int64_t vertex = first; vertex < last; ++vertex) {
            int64_t c = 0;
            for (; c + 3 <= count; c += 3)  // 12 sums at most
                splat_vertex<3>(group, lattice, labels, count, c, factors, v, vertex, values);
            for (; c < count; ++c)
                splat_vertex<1>(group, lattice, labels, count, c, factors, v, vertex, values);
        }
    });
}

// sums += W' (factor v) for `count` pixels from `first` on, whose rows begin at v.
inline void scatter(const Lattice& lattice, int64_t stride, const int32_t* places,
                    const float* factor, const float* v, int64_t first, int64_t count,
                    float* sums) {
    by_groups(stride, [=](auto group) {
        by_size(lattice.size, [=, weights = lattice.slice_weights](auto size) {
            for (int64_t pixel = first; pixel < first + count; ++pixel) {
                const auto row = group.load_row(v + (pixel - first) * stride);
                const float own = factor != nullptr ? factor[pixel] : 1.0f;
                for (int k = 0; k < size; ++k) {
                    const float weight = own * weights[pixel * size + k];
                    float* const to = sums + places[pixel * size + k] * stride;
                    auto sum = group.load_row(to);
                    for (int g = 0; g < group.blocks; ++g) sum.block[g] += weight * row.block[g];
                    group.store_row(to, sum);
                }
            }
        });
    });
}

// One direction of the blur for some of the vertices: (M + 1, L) -> (M + 1, L).
void blur(const int32_t* stencil, const float* taps, int width, int64_t labels,
          const float* values, float* blurred, int64_t begin, int64_t end) {
    by_groups_and_rows(labels, begin, end, [=](auto group, int64_t first, int64_t last) {
        for (int64_t vertex = first; vertex < last; ++vertex) {
            const int32_t* rows = stencil + vertex * width;
            if (vertex + AHEAD < end)
                for (int k = 0; k < width - 1; ++k)
                    prefetch(values + rows[AHEAD * width + k] * labels, labels);
            auto sum = group.zero();
            for (int k = 0; k < width; ++k) group.add(sum, taps[k], values + rows[k] * labels);
            group.store_row(blurred + vertex * labels, sum);
        }
    });
}

// W values, with the gain, for some of the pixels: (M + 1, L) -> (BN, L).
void slice_(const Lattice& lattice, int64_t labels, const float* values, float* filtered,
            int64_t begin, int64_t end) {
    const int size = lattice.size;
    by_groups_and_rows(labels, begin, end, [=](auto group, int64_t first, int64_t last) {
        for (int64_t pixel = first; pixel < last; ++pixel) {
            const int32_t* vertices = lattice.slice_vertices + pixel * size;
            const float* weights = lattice.slice_weights + pixel * size;
            auto sum = group.zero();
            for (int k = 0; k < size; ++k)
                group.add(sum, weights[k] * lattice.gain, values + vertices[k] * labels);
            group.store_row(filtered + pixel * labels, sum);
        }
    });
}

// `slice_dots` of 8 G or up to 7 fewer labels, all of a row in registers.
template <int G>
inline void slice_dots_in_registers(const Lattice& lattice, int64_t labels, int64_t count,
                                    const float* values, const float* v, float* dots,
                                    int64_t begin, int64_t end) {
    const int size = lattice.size;
    const Group<8, G> group(0, labels);
    const auto own_lanes = lanes_of_last_block(labels, G);
    for (int64_t pixel = begin; pixel < end; ++pixel) {
        const int32_t* vertices = lattice.slice_vertices + pixel * size;
        const float* weights = lattice.slice_weights + pixel * size;
        if (pixel + SLICES_AHEAD < end)
            for (int k = 0; k < size; ++k)
                prefetch(values + vertices[SLICES_AHEAD * size + k] * count * labels,
                         count * labels);
        auto row = group.load_row(v + pixel * labels);
        row.block[G - 1] *= own_lanes;
        for (int64_t c = 0; c < count; ++c) {
            auto sum = group.zero();
            for (int k = 0; k < size; ++k)
                group.add(sum, weights[k], values + (vertices[k] * count + c) * labels);
            Lanes<8> lanes = {};
            for (int g = 0; g < G; ++g) lanes += sum.block[g] * row.block[g];
            dots[pixel * count + c] = lattice.gain * sum_of(lanes);
        }
    }
}

// <v_i, (W values_c)_i> with the gain, c < count, for some of the pixels: values (M + 1, count, L),
// dots (BN, count).
void slice_dots(const Lattice& lattice, int64_t labels, int64_t count, const float* values,
                const float* v, float* dots, int64_t begin, int64_t end) {
    const int64_t blocks = labels < 8 ? 0 : (labels + 7) / 8;
    const auto in_registers = blocks == 1   ? slice_dots_in_registers<1>
                              : blocks == 2 ? slice_dots_in_registers<2>
                              : blocks == 3 ? slice_dots_in_registers<3>
                              : blocks == 4 ? slice_dots_in_registers<4>
                                            : nullptr;
    if (in_registers != nullptr)
        return in_registers(lattice, labels, count, values, v, dots, begin, end);
    const int size = lattice.size;
    std::vector<float> sliced(labels);
    for (int64_t pixel = begin; pixel < end; ++pixel) {
        const int32_t* vertices = lattice.slice_vertices + pixel * size;
        const float* weights = lattice.slice_weights + pixel * size;
        for (int64_t c = 0; c < count; ++c) {
            by_groups(labels, [=, sliced = sliced.data()](auto group) {
                auto sum = group.zero();
                for (int k = 0; k < size; ++k)
                    group.add(sum, weights[k], values + (vertices[k] * count + c) * labels);
                group.store_row(sliced, sum);
            });
            float dot;
            row_dots(sliced.data(), v + pixel * labels, labels, &dot, 0, 1);
            dots[pixel * count + c] = lattice.gain * dot;
        }
    }
}

// The separable Gaussian along one axis.

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
    by_groups(columns, [=](auto group) {
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
