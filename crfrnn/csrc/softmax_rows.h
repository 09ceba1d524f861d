// The softmax over the labels of a row, its gradient, and the exponential in it.

namespace {

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
    by_groups(stride, [&](auto group) {
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
        for (int l = 0; l < 4; ++l) row[l] *= scale;
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
