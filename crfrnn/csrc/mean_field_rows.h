// The rows of one mean-field update before and after the filters: the twin of
// `mean_field_update` in inference.py, with the softmax ahead of it.

namespace {

using crfrnn::Message;
using crfrnn::Term;

constexpr int64_t ROWS = crfrnn::MESSAGE_ROWS;  // pixels that share every row of a penalty

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
    const Block<8>::Integers bits =
        (__builtin_convertvector(n, Block<8>::Integers) + 127) << 23;
    Lanes<8> power;
    std::memcpy(&power, &bits, sizeof power);
    return x < tiny ? Lanes<8>{} : p * power;
}

inline Lanes<8> larger(Lanes<8> a, Lanes<8> b) { return a > b ? a : b; }

// combine over the eight lanes, in halves.
template <class Combine>
inline float across(Lanes<8> lanes, const Combine& combine) {
    float x[8];
    store<8>(x, lanes);
    const float a = combine(combine(x[0], x[4]), combine(x[2], x[6]));
    return combine(a, combine(combine(x[1], x[5]), combine(x[3], x[7])));
}

// softmax of a row of logits into q, which is padded to blocks of 8 with zeros; returns its sum.
inline float softmax(const float* logits, int64_t labels, int64_t padded, float* q) {
    for (int64_t l = 0; l + 8 <= labels; l += 8) store<8>(q + l, load<8>(logits + l));
    if (labels >= 8)
        store<8>(q + labels - 8, load<8>(logits + labels - 8));
    else
        for (int64_t l = 0; l < labels; ++l) q[l] = logits[l];
    for (int64_t l = labels; l < padded; ++l) q[l] = logits[0];
    Lanes<8> most = load<8>(q);
    for (int64_t l = 8; l < padded; l += 8) most = larger(most, load<8>(q + l));
    const float largest = across(most, [](float a, float b) { return a > b ? a : b; });
    for (int64_t l = 0; l < padded; l += 8) store<8>(q + l, exponential(load<8>(q + l) - largest));
    for (int64_t l = labels; l < padded; ++l) q[l] = 0.0f;
    Lanes<8> sums = {};
    for (int64_t l = 0; l < padded; l += 8) sums += load<8>(q + l);
    const float sum = across(sums, [](float a, float b) { return a + b; });
    const float scale = 1.0f / sum;
    for (int64_t l = 0; l < padded; l += 8) store<8>(q + l, load<8>(q + l) * scale);
    return sum * scale;
}

// before * (q P') of `T` pixels.
template <int T>
inline void label_product(const Message& message, int64_t labels, int64_t padded, const float* q,
                          const float* totals, int64_t pixel) {
    float* const to = message.rows + pixel * labels;
    float factor[T];
    for (int t = 0; t < T; ++t) factor[t] = message.before ? message.before[pixel + t] : 1.0f;
    by_groups(labels, [&](auto group) {
        typename decltype(group)::Sum sums[T] = {};
        if (message.uniform) {
            // One penalty between any two labels: P = c 1 1' + diag(p).
            const auto own = group.load_row(message.diagonal);
            for (int t = 0; t < T; ++t) {
                const auto row = group.load_row(q + t * padded);
                for (int g = 0; g < group.blocks; ++g)
                    sums[t].block[g] = totals[t] * message.between + row.block[g] * own.block[g];
            }
        } else {
            for (int64_t l = 0; l < labels; ++l) {
                const auto row = group.load_row(message.penalty_columns + l * labels);
                for (int t = 0; t < T; ++t)
                    for (int g = 0; g < group.blocks; ++g)
                        sums[t].block[g] += q[t * padded + l] * row.block[g];
            }
        }
        for (int t = 0; t < T; ++t) {
            for (int g = 0; g < group.blocks; ++g) sums[t].block[g] *= factor[t];
            group.store_row(to + t * labels, sums[t]);
        }
    });
}

// What every kernel filters, for some of the pixels; q has room for ROWS padded rows.
void messages(const Message* all, int count, int64_t labels, const float* logits, float* q,
              int64_t begin, int64_t end) {
    const int64_t padded = (labels + 7) / 8 * 8;
    float totals[ROWS];
    int64_t pixel = begin;
    for (; pixel + ROWS <= end; pixel += ROWS) {
        for (int64_t t = 0; t < ROWS; ++t)
            totals[t] = softmax(logits + (pixel + t) * labels, labels, padded, q + t * padded);
        for (int m = 0; m < count; ++m)
            label_product<ROWS>(all[m], labels, padded, q, totals, pixel);
    }
    for (; pixel < end; ++pixel) {
        totals[0] = softmax(logits + pixel * labels, labels, padded, q);
        for (int m = 0; m < count; ++m) label_product<1>(all[m], labels, padded, q, totals, pixel);
    }
}

// unary - sum_m after_m * (K_m ...), slicing the lattices on the way, for some of the pixels.
void update(const Term* terms, int count, int64_t labels, const float* unary, float* logits,
            int64_t begin, int64_t end) {
    by_groups_and_rows(labels, begin, end, [&](auto group, int64_t first, int64_t last) {
        for (int64_t pixel = first; pixel < last; ++pixel) {
            auto sum = group.load_row(unary + pixel * labels);
            for (int m = 0; m < count; ++m) {
                const Term& term = terms[m];
                const float factor = term.after ? term.after[pixel] : 1.0f;
                if (term.lattice == nullptr) {
                    group.add(sum, -factor, term.values + pixel * labels);
                    continue;
                }
                const int size = term.lattice->size;
                const int32_t* vertices = term.lattice->slice_vertices + pixel * size;
                const float* weights = term.lattice->slice_weights + pixel * size;
                const float scale = -factor * term.lattice->gain;
                for (int k = 0; k < size; ++k)
                    group.add(sum, weights[k] * scale, term.values + vertices[k] * labels);
            }
            group.store_row(logits + pixel * labels, sum);
        }
    });
}

}  // namespace
