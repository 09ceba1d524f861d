// The three stages of the lattice filter on rows [begin, end): the twin of filtering/lattice.py.

namespace {

using crfrnn::Lattice;

constexpr int64_t AHEAD = 8;  // rows between a row asked for and the one being added

// Ask for a row of labels: which row comes next is a table's secret to the processor.
inline void prefetch(const float* row, int64_t labels) {
    __builtin_prefetch(row);
    __builtin_prefetch(row + labels - 1);
}

// W' (factor_c v), c < count, for some of the vertices: (BN, L) -> (M + 1, count, L). The factors
// are (BN, count); null is a single 1.
void splat(const Lattice& lattice, int64_t labels, int64_t count, const float* factors,
           const float* v, float* values, int64_t begin, int64_t end) {
    const int64_t entries = lattice.pixels * lattice.size;
    by_groups_and_rows(labels, begin, end, [&](auto group, int64_t first, int64_t last) {
        for (int64_t vertex = first; vertex < last; ++vertex) {
            const int64_t start = lattice.splat_offsets[vertex], stop = lattice.splat_end(vertex);
            for (int64_t c = 0; c < count; ++c) {
                auto sum = group.zero();
                for (int64_t entry = start; entry < stop; ++entry) {
                    if (c == 0 && entry + 2 * AHEAD < entries)
                        prefetch(v + lattice.splat_pixels[entry + 2 * AHEAD] * labels, labels);
                    const int64_t pixel = lattice.splat_pixels[entry];
                    const float weight = lattice.splat_weights[entry];
                    group.add(sum, factors ? weight * factors[pixel * count + c] : weight,
                              v + pixel * labels);
                }
                group.store_row(values + (vertex * count + c) * labels, sum);
            }
        }
    });
}

// One direction of the blur for some of the vertices: (M + 1, L) -> (M + 1, L).
void blur(const int32_t* stencil, const float* taps, int width, int64_t labels,
          const float* values, float* blurred, int64_t begin, int64_t end) {
    by_groups_and_rows(labels, begin, end, [&](auto group, int64_t first, int64_t last) {
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
    by_groups_and_rows(labels, begin, end, [&](auto group, int64_t first, int64_t last) {
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

// <v_i, (W values_c)_i> with the gain, c < count, for some of the pixels: values (M + 1, count, L),
// dots (BN, count).
void slice_dots(const Lattice& lattice, int64_t labels, int64_t count, const float* values,
                const float* v, float* dots, int64_t begin, int64_t end) {
    const int size = lattice.size;
    const int64_t padded = (labels + 7) / 8 * 8;
    std::vector<float> memory(2 * padded);  // zeros beyond the labels
    float* const sliced = memory.data();
    float* const row = memory.data() + padded;
    for (int64_t pixel = begin; pixel < end; ++pixel) {
        const int32_t* vertices = lattice.slice_vertices + pixel * size;
        const float* weights = lattice.slice_weights + pixel * size;
        std::copy_n(v + pixel * labels, labels, row);
        for (int64_t c = 0; c < count; ++c) {
            by_groups(labels, [&](auto group) {
                auto sum = group.zero();
                for (int k = 0; k < size; ++k)
                    group.add(sum, weights[k], values + (vertices[k] * count + c) * labels);
                group.store_row(sliced, sum);
            });
            Lanes<8> lanes = {};
            for (int64_t l = 0; l < padded; l += 8)
                lanes += load<8>(sliced + l) * load<8>(row + l);
            dots[pixel * count + c] = lattice.gain * sum_of(lanes);
        }
    }
}

}  // namespace
