// Rows of labels in registers. A row of L floats is cut into groups of up to four blocks of 8 (of 4,
// 3, 2 or 1 for a remainder below 8); the last block overlaps the one before it, so no label is left
// over for a slow loop. The sums of a group stay in registers while the rows go by.
//
// Included once for each instruction set: everything here is in an unnamed namespace.

namespace {

template <int W>
struct Block {
    typedef float Lanes __attribute__((vector_size(4 * W)));
    typedef int32_t Integers __attribute__((vector_size(4 * W)));
};
template <>
struct Block<1> {
    typedef float Lanes;
    typedef int32_t Integers;
};
// Vectors of two or three floats are taken apart by compilers; of four, some lanes may be idle.
template <>
struct Block<2> : Block<4> {};
template <>
struct Block<3> : Block<4> {};

template <int W>
using Lanes = typename Block<W>::Lanes;

template <int W>
inline Lanes<W> load(const float* from) {
    Lanes<W> lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}
template <>
inline Lanes<2> load<2>(const float* from) {
    return Lanes<2>{from[0], from[1]};
}
template <>
inline Lanes<3> load<3>(const float* from) {
    return Lanes<3>{from[0], from[1], from[2]};
}

template <int W>
inline void store(float* to, Lanes<W> lanes) {
    std::memcpy(to, &lanes, sizeof lanes);
}
template <>
inline void store<2>(float* to, Lanes<2> lanes) {
    for (int k = 0; k < 2; ++k) to[k] = lanes[k];
}
template <>
inline void store<3>(float* to, Lanes<3> lanes) {
    for (int k = 0; k < 3; ++k) to[k] = lanes[k];
}

typedef float Pair __attribute__((vector_size(8)));

inline Lanes<8> larger(Lanes<8> a, Lanes<8> b) { return a > b ? a : b; }

// The sum of eight lanes, in halves.
inline float sum_of(Lanes<8> lanes) {
    Lanes<4> half[2];
    std::memcpy(half, &lanes, sizeof lanes);
    const Lanes<4> four = half[0] + half[1];
    Pair quarter[2];
    std::memcpy(quarter, &four, sizeof four);
    const Pair two = quarter[0] + quarter[1];
    return two[0] + two[1];
}

// The largest of eight lanes.
inline float largest_of(Lanes<8> lanes) {
    Lanes<4> half[2];
    std::memcpy(half, &lanes, sizeof lanes);
    const Lanes<4> four = half[0] > half[1] ? half[0] : half[1];
    Pair quarter[2];
    std::memcpy(quarter, &four, sizeof four);
    const Pair two = quarter[0] > quarter[1] ? quarter[0] : quarter[1];
    return two[0] > two[1] ? two[0] : two[1];
}

// G blocks of W labels: the labels they begin at, and sums of rows over them.
template <int W, int G>
struct Group {
    static constexpr int width = W, blocks = G;

    struct Sum {
        Lanes<W> block[G];
    };

    Group(int64_t first, int64_t labels)
        : first_(first), last_(std::min(first + (G - 1) * W, labels - W)) {}

    // The label that a block begins at.
    int64_t at(int g) const { return g < G - 1 ? first_ + g * W : last_; }

    Sum zero() const { return Sum{}; }

    Sum load_row(const float* row) const {
        Sum sum;
        for (int g = 0; g < G; ++g) sum.block[g] = load<W>(row + at(g));
        return sum;
    }

    void add(Sum& sum, float weight, const float* row) const {
        for (int g = 0; g < G; ++g) sum.block[g] += weight * load<W>(row + at(g));
    }

    void store_row(float* row, const Sum& sum) const {
        for (int g = 0; g < G; ++g) store<W>(row + at(g), sum.block[g]);
    }

   private:
    const int64_t first_, last_;
};

// body(group) for the groups that cover `labels` labels. Blocks overlap inside a group alone, so
// a body may change rows in place: a group reads all of its labels before it writes any.
template <class Body>
inline void by_groups(int64_t labels, const Body& body) {
    int64_t first = 0;
    for (; first + 32 <= labels; first += 32) body(Group<8, 4>(first, labels));
    const int64_t left = labels - first;
    if (left > 24) return body(Group<8, 4>(first, labels));
    if (left > 16) return body(Group<8, 3>(first, labels));
    if (left > 8) return body(Group<8, 2>(first, labels));
    if (left == 8) return body(Group<8, 1>(first, labels));
    if (left > 4) return body(Group<4, 2>(first, labels));
    if (left == 4) return body(Group<4, 1>(first, labels));
    if (left == 3) return body(Group<3, 1>(first, labels));
    if (left == 2) return body(Group<2, 1>(first, labels));
    if (left == 1) return body(Group<1, 1>(first, labels));
}

// body(group, begin, end) likewise, over few enough rows at a time that they stay in the cache
// from group to group.
template <class Body>
inline void by_groups_and_rows(int64_t labels, int64_t begin, int64_t end, const Body& body) {
    const int64_t step = labels > 32 ? 64 : end - begin;
    for (int64_t first = begin; first < end; first += step)
        by_groups(labels, [&](auto group) { body(group, first, std::min(first + step, end)); });
}

// Whether a lane is one of the first.
inline Block<8>::Integers first_lanes(int64_t count) {
    Block<8>::Integers lanes;
    for (int k = 0; k < 8; ++k) lanes[k] = k < count ? -1 : 0;
    return lanes;
}

// Floats of the calling thread, not initialised, aligned to cache lines: one memory for each slot,
// kept from call to call, because fresh memory would cost more than what is done in it.
inline float* workspace(std::size_t slot, int64_t count) {
    static thread_local std::vector<std::vector<float>> memory;
    if (memory.size() <= slot) memory.resize(slot + 1);
    std::vector<float>& own = memory[slot];
    if (static_cast<int64_t>(own.size()) < count + 16) own.resize(count + 16);
    const auto address = reinterpret_cast<std::uintptr_t>(own.data());
    return own.data() + (64 - address % 64) % 64 / sizeof(float);
}

// 1 for the labels that are the last of G blocks' own, 0 for those of the block before it.
inline Lanes<8> lanes_of_last_block(int64_t labels, int blocks) {
    Lanes<8> lanes;
    for (int k = 0; k < 8; ++k) lanes[k] = k >= 8 * blocks - labels ? 1.0f : 0.0f;
    return lanes;
}

// <a_i, b_i> of pixels [begin, end).
void row_dots(const float* a, const float* b, int64_t labels, float* dots, int64_t begin,
              int64_t end) {
    const int64_t whole = labels / 8 * 8;
    for (int64_t pixel = begin; pixel < end; ++pixel) {
        const float* const left = a + pixel * labels;
        const float* const right = b + pixel * labels;
        Lanes<8> lanes = {};
        for (int64_t l = 0; l < whole; l += 8) lanes += load<8>(left + l) * load<8>(right + l);
        float dot = whole > 0 ? sum_of(lanes) : 0.0f;
        for (int64_t l = whole; l < labels; ++l) dot += left[l] * right[l];
        dots[pixel] = dot;
    }
}

// The softmax over the labels of a row, its gradient, and the exponential in it.

// exp(x) for x <= 0, to about 1 unit in the last place (Cody and Waite's reduction, a polynomial
// of degree 6); below -87 it is that of -87, some 1e-38.
inline Lanes<8> exponential(Lanes<8> x) {
    const Lanes<8> clamped = larger(x, Lanes<8>{} - 87.0f);
    // Adding 1.5 * 2^23 rounds to a whole number, which is in the last bits.
    const Lanes<8> shifted = clamped * 1.44269504f + 12582912.0f;
    const Lanes<8> n = shifted - 12582912.0f;
    const Lanes<8> r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    Lanes<8> p = r * 1.38888889e-3f + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    Block<8>::Integers bits, exponent;
    std::memcpy(&bits, &p, sizeof bits);
    std::memcpy(&exponent, &shifted, sizeof exponent);
    bits += exponent << 23;
    std::memcpy(&p, &bits, sizeof p);
    return p;
}

// `count` rows (L,) to padded rows, with `fill` in the padding; `left` rows are there in all.
inline void pad_rows(const float* rows, int64_t labels, int64_t stride, int64_t count, int64_t left,
                     float fill, float* to) {
    // A whole block reads into the next rows, so the last ones are copied float by float.
    const int64_t whole = stride < 8 ? 0 : std::max<int64_t>(std::min(count, left - 1), 0);
    const auto own = first_lanes(labels - (stride - 8));
    const Lanes<8> filled = Lanes<8>{} + fill;
    int64_t k = 0;
    by_groups(stride, [=](auto group) {
        if constexpr (decltype(group)::width == 8) {
            const bool has_end = group.at(group.blocks - 1) == stride - 8;
            for (int64_t row = 0; row < whole; ++row) {
                auto values = group.load_row(rows + row * labels);
                if (has_end) {
                    auto& end = values.block[group.blocks - 1];
                    end = own ? end : filled;
                }
                group.store_row(to + row * stride, values);
            }
        }
    });
    for (k = whole; k < count; ++k) {
        std::copy_n(rows + k * labels, labels, to + k * stride);
        std::fill_n(to + k * stride + labels, stride - labels, fill);
    }
}

// `count` padded rows without their padding.
inline void unpad_rows(const float* rows, int64_t labels, int64_t stride, int64_t count, float* to) {
    // A whole block writes into the next row, which comes later.
    const int64_t whole = stride < 8 ? 0 : count - 1;
    for (int64_t k = 0; k < whole; ++k)
        for (int64_t l = 0; l < stride; l += 8)
            store<8>(to + k * labels + l, load<8>(rows + k * stride + l));
    for (int64_t k = whole; k < count; ++k)
        std::copy_n(rows + k * stride, labels, to + k * labels);
}

// softmax of padded rows of 8 G floats in their place, 0 in the padding. Step by step over some
// rows: each step waits for a sum or a quotient of its own row alone, and the rows do not wait for
// each other.
template <int G>
inline void softmax_blocks(float* rows, int64_t labels, int64_t count) {
    constexpr int64_t COUNT = 32;
    float largest[COUNT], sums[COUNT];
    const auto own = first_lanes(labels - 8 * (G - 1));
    const Lanes<8> nothing = Lanes<8>{} - std::numeric_limits<float>::infinity();
    const Group<8, G> group(0, 8 * G);
    for (int64_t first = 0; first < count; first += COUNT, rows += COUNT * 8 * G) {
        const int64_t some = std::min(COUNT, count - first);
        for (int64_t k = 0; k < some; ++k) {
            auto row = group.load_row(rows + k * 8 * G);
            Lanes<8> most = own ? row.block[G - 1] : nothing;
            for (int g = 0; g < G - 1; ++g) most = larger(most, row.block[g]);
            largest[k] = largest_of(most);
        }
        for (int64_t k = 0; k < some; ++k) {
            auto row = group.load_row(rows + k * 8 * G);
            for (int g = 0; g < G; ++g) row.block[g] = exponential(row.block[g] - largest[k]);
            row.block[G - 1] = own ? row.block[G - 1] : Lanes<8>{};
            Lanes<8> sum = row.block[0];
            for (int g = 1; g < G; ++g) sum += row.block[g];
            sums[k] = sum_of(sum);
            group.store_row(rows + k * 8 * G, row);
        }
        for (int64_t k = 0; k < some; ++k) {
            auto row = group.load_row(rows + k * 8 * G);
            const float scale = 1.0f / sums[k];
            for (int g = 0; g < G; ++g) row.block[g] *= scale;
            group.store_row(rows + k * 8 * G, row);
        }
    }
}

// `softmax_blocks` of a row of any number of blocks.
inline void softmax_row(float* row, int64_t labels, int64_t stride) {
    const auto own = first_lanes(labels - (stride - 8));
    Lanes<8>
        most = own ? load<8>(row + stride - 8)
                   : Lanes<8>{} - std::numeric_limits<float>::infinity();
    for (int64_t l = 0; l < stride - 8; l += 8) most = larger(most, load<8>(row + l));
    const float largest = largest_of(most);
    Lanes<8> sums = {};
    for (int64_t l = 0; l < stride; l += 8) {
        Lanes<8> e = exponential(load<8>(row + l) - largest);
        if (l == stride - 8) e = own ? e : Lanes<8>{};
        sums += e;
        store<8>(row + l, e);
    }
    const float scale = 1.0f / sum_of(sums);
    for (int64_t l = 0; l < stride; l += 8) store<8>(row + l, load<8>(row + l) * scale);
}

// softmax of padded rows of 4 floats in their place, two rows to a block.
inline void softmax_few(float* rows, int64_t labels, int64_t count) {
    for (int64_t k = 0; k < count; ++k) {
        float* const row = rows + 4 * k;
        float largest = row[0];
        for (int l = 1; l < labels; ++l) largest = std::max(largest, row[l]);
        for (int l = 0; l < 4; ++l)
            row[l] = l < labels ? row[l] - largest : -std::numeric_limits<float>::infinity();
    }
    int64_t at = 0;
    for (; at + 8 <= 4 * count; at += 8) store<8>(rows + at, exponential(load<8>(rows + at)));
    if (at < 4 * count) {
        float rest[8] = {};
        std::copy_n(rows + at, 4, rest);
        store<8>(rest, exponential(load<8>(rest)));
        std::copy_n(rest, 4, rows + at);
    }
    for (int64_t k = 0; k < count; ++k) {
        float* const row = rows + 4 * k;
        const float scale = 1.0f / ((row[0] + row[1]) + (row[2] + row[3]));
        // Of the padding, e^-inf is the smallest number, not 0: its products would be denormal, and slow.
        for (int l = 0; l < 4; ++l) row[l] = l < labels ? row[l] * scale : 0.0f;
    }
}

// softmax of padded rows in their place, 0 in the padding.
inline void softmax_padded(float* rows, int64_t labels, int64_t stride, int64_t count) {
    switch (stride) {
        case 4: return softmax_few(rows, labels, count);
        case 8: return softmax_blocks<1>(rows, labels, count);
        case 16: return softmax_blocks<2>(rows, labels, count);
        case 24: return softmax_blocks<3>(rows, labels, count);
        case 32: return softmax_blocks<4>(rows, labels, count);
    }
    for (int64_t k = 0; k < count; ++k) softmax_row(rows + k * stride, labels, stride);
}

// Pixels whose padded rows stay in the first cache.
inline int64_t pixels_together(int64_t stride) {
    return std::clamp<int64_t>(1536 / stride, 8, 64);
}

// q of pixels [begin, end), which may take the place of the logits.
void softmax(const float* logits, int64_t labels, float* q, int64_t begin, int64_t end) {
    const int64_t stride = crfrnn::padded_labels(labels), together = pixels_together(stride);
    float* const rows = workspace(0, together * stride);
    for (int64_t pixel = begin; pixel < end; pixel += together) {
        const int64_t count = std::min(together, end - pixel);
        pad_rows(logits + pixel * labels, labels, stride, count, end - pixel, 0.0f, rows);
        softmax_padded(rows, labels, stride, count);
        unpad_rows(rows, labels, stride, count, q + pixel * labels);
    }
}

// q (g - <q, g>) of padded rows, in the place of g.
inline void softmax_grad(const float* q, int64_t stride, int64_t count, float* g) {
    for (int64_t k = 0; k < count; ++k, q += stride, g += stride) {
        float mean;
        row_dots(q, g, stride, &mean, 0, 1);
        for (int64_t l = 0; l < stride; l += 4)
            store<4>(g + l, load<4>(q + l) * (load<4>(g + l) - mean));
    }
}

}  // namespace
