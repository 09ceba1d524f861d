// The softmax over the labels of a row, its gradient, and the exponential in it.

namespace {

// exp(x) for x <= 0, to about 1 unit in the last place (Cody and Waite's reduction, a polynomial
// of degree 6); what would be subnormal is 0.
inline Lanes<8> exponential(Lanes<8> x) {
    const Lanes<8> tiny = Lanes<8>{} - 87.0f;
    const Lanes<8> clamped = x < tiny ? tiny : x;
    // Adding 1.5 * 2^23 rounds to a whole number.
    const Lanes<8> n = (clamped * 1.44269504f + 12582912.0f) - 12582912.0f;
    const Lanes<8> r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    Lanes<8> p = r * 1.38888889e-3f + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const Block<8>::Integers bits = (__builtin_convertvector(n, Block<8>::Integers) + 127) << 23;
    Lanes<8> power;
    std::memcpy(&power, &bits, sizeof power);
    return x < tiny ? Lanes<8>{} : p * power;
}

// softmax of a row of eight labels or more.
inline void softmax_row(const float* logits, int64_t labels, float* q) {
    const int64_t whole = labels / 8 * 8;
    float largest = logits[0];
    Lanes<8> most = Lanes<8>{} + largest;
    for (int64_t l = 0; l < whole; l += 8) most = larger(most, load<8>(logits + l));
    largest = largest_of(most);
    for (int64_t l = whole; l < labels; ++l) largest = std::max(largest, logits[l]);

    Lanes<8> sums = {};
    for (int64_t l = 0; l < whole; l += 8) {
        const Lanes<8> e = exponential(load<8>(logits + l) - largest);
        sums += e;
        store<8>(q + l, e);
    }
    if (whole < labels) {
        float rest[8];
        std::fill_n(rest, 8, -std::numeric_limits<float>::infinity());
        for (int64_t l = whole; l < labels; ++l) rest[l - whole] = logits[l] - largest;
        const Lanes<8> e = exponential(load<8>(rest));
        sums += e;
        store<8>(rest, e);
        std::copy_n(rest, labels - whole, q + whole);
    }
    const float scale = 1.0f / sum_of(sums);
    for (int64_t l = 0; l < labels; ++l) q[l] *= scale;
}

// softmax of rows of 8 G or up to 7 fewer labels. Step by step over some rows: each step waits for
// a sum or a quotient of its own row alone, and the rows do not wait for each other.
template <int G>
inline void softmax_rows(const float* logits, int64_t labels, float* q, int64_t begin,
                         int64_t end) {
    constexpr int64_t COUNT = 32;
    float largest[COUNT], sums[COUNT];
    const Lanes<8> own_lanes = lanes_of_last_block(labels, G);
    const Group<8, G> group(0, labels);
    for (int64_t first = begin; first < end; first += COUNT) {
        const int64_t count = std::min(COUNT, end - first);
        const float* const from = logits + first * labels;
        float* const to = q + first * labels;
        for (int64_t k = 0; k < count; ++k) {
            const auto row = group.load_row(from + k * labels);
            Lanes<8> most = row.block[0];
            for (int g = 1; g < G; ++g) most = larger(most, row.block[g]);
            largest[k] = largest_of(most);
        }
        for (int64_t k = 0; k < count; ++k) {
            auto row = group.load_row(from + k * labels);
            for (int g = 0; g < G; ++g) row.block[g] = exponential(row.block[g] - largest[k]);
            // The last block repeats labels of the one before it.
            Lanes<8> sum = row.block[G - 1] * own_lanes;
            for (int g = 0; g < G - 1; ++g) sum += row.block[g];
            sums[k] = sum_of(sum);
            group.store_row(to + k * labels, row);
        }
        for (int64_t k = 0; k < count; ++k) {
            auto row = group.load_row(to + k * labels);
            const float scale = 1.0f / sums[k];
            for (int g = 0; g < G; ++g) row.block[g] *= scale;
            group.store_row(to + k * labels, row);
        }
    }
}

// softmax of rows of L labels, too few for a block: the exponential goes over rows in a row.
template <int L>
inline void softmax_few(const float* logits, float* q, int64_t begin, int64_t end) {
    constexpr int64_t COUNT = 64;
    for (int64_t first = begin; first < end; first += COUNT) {
        const int64_t count = std::min(COUNT, end - first), floats = count * L;
        const float* const from = logits + first * L;
        float* const to = q + first * L;
        for (int64_t k = 0; k < count; ++k) {
            float largest = from[k * L];
            for (int l = 1; l < L; ++l) largest = std::max(largest, from[k * L + l]);
            for (int l = 0; l < L; ++l) to[k * L + l] = from[k * L + l] - largest;
        }
        int64_t at = 0;
        for (; at + 8 <= floats; at += 8) store<8>(to + at, exponential(load<8>(to + at)));
        float rest[8] = {};
        std::copy_n(to + at, floats - at, rest);
        store<8>(rest, exponential(load<8>(rest)));
        std::copy_n(rest, floats - at, to + at);
        for (int64_t k = 0; k < count; ++k) {
            float sum = to[k * L];
            for (int l = 1; l < L; ++l) sum += to[k * L + l];
            const float scale = 1.0f / sum;
            for (int l = 0; l < L; ++l) to[k * L + l] *= scale;
        }
    }
}

// q of pixels [begin, end), which may take the place of the logits.
void softmax(const float* logits, int64_t labels, float* q, int64_t begin, int64_t end) {
    switch (labels < 8 ? labels : 8 * ((labels + 7) / 8)) {
        case 1: return softmax_few<1>(logits, q, begin, end);
        case 2: return softmax_few<2>(logits, q, begin, end);
        case 3: return softmax_few<3>(logits, q, begin, end);
        case 4: return softmax_few<4>(logits, q, begin, end);
        case 5: return softmax_few<5>(logits, q, begin, end);
        case 6: return softmax_few<6>(logits, q, begin, end);
        case 7: return softmax_few<7>(logits, q, begin, end);
        case 8: return softmax_rows<1>(logits, labels, q, begin, end);
        case 16: return softmax_rows<2>(logits, labels, q, begin, end);
        case 24: return softmax_rows<3>(logits, labels, q, begin, end);
        case 32: return softmax_rows<4>(logits, labels, q, begin, end);
    }
    for (int64_t pixel = begin; pixel < end; ++pixel)
        softmax_row(logits + pixel * labels, labels, q + pixel * labels);
}

// q (g - <q, g>) of pixels [begin, end), which may take the place of g.
void softmax_grad(const float* q, const float* g, int64_t labels, float* logits_grad,
                  int64_t begin, int64_t end) {
    constexpr int64_t COUNT = 64;  // pixels whose rows stay in the cache
    float means[COUNT];
    for (int64_t first = begin; first < end; first += COUNT) {
        const int64_t last = std::min(first + COUNT, end);
        row_dots(q + first * labels, g + first * labels, labels, means, 0, last - first);
        by_groups(labels, [&](auto group) {
            for (int64_t pixel = first; pixel < last; ++pixel) {
                auto row = group.load_row(g + pixel * labels);
                const auto own = group.load_row(q + pixel * labels);
                for (int k = 0; k < group.blocks; ++k)
                    row.block[k] = own.block[k] * (row.block[k] - means[pixel - first]);
                group.store_row(logits_grad + pixel * labels, row);
            }
        });
    }
}

}  // namespace
