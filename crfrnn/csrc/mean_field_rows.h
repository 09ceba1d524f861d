// The rows of a mean-field update and of its gradient, after the filters: the twin of
// `mean_field_update` in inference.py.

namespace {

using crfrnn::Lattice;
using crfrnn::Patch;
using crfrnn::Penalty;
using crfrnn::Term;

// factor * v of pixels [begin, end), to rows that begin at `scaled`.
void scale(const float* factor, int64_t labels, const float* v, float* scaled, int64_t begin,
           int64_t end) {
    by_groups(labels, [&](auto group) {
        for (int64_t pixel = begin; pixel < end; ++pixel) {
            auto row = group.load_row(v + pixel * labels);
            for (int g = 0; g < group.blocks; ++g) row.block[g] *= factor[pixel];
            group.store_row(scaled + (pixel - begin) * labels, row);
        }
    });
}

// The sum of each row of labels.
inline void row_totals(const float* rows, int64_t labels, int64_t count, float* totals) {
    const int64_t whole = labels / 8 * 8;
    for (int64_t pixel = 0; pixel < count; ++pixel, rows += labels) {
        Lanes<8> lanes = {};
        for (int64_t l = 0; l < whole; l += 8) lanes += load<8>(rows + l);
        float total = whole > 0 ? sum_of(lanes) : 0.0f;
        for (int64_t l = whole; l < labels; ++l) total += rows[l];
        totals[pixel] = total;
    }
}

// sums -= factor * (messages P'), for `T` rows that share every row of the penalty.
template <int T>
inline void subtract_products(const Penalty& penalty, int64_t labels, const float* messages,
                              const float* factor, float* sums) {
    by_groups(labels, [&](auto group) {
        typename decltype(group)::Sum products[T] = {};
        for (int64_t k = 0; k < labels; ++k) {
            const auto row = group.load_row(penalty.rows + k * labels);
            for (int t = 0; t < T; ++t)
                for (int g = 0; g < group.blocks; ++g)
                    products[t].block[g] += messages[t * labels + k] * row.block[g];
        }
        for (int t = 0; t < T; ++t) {
            auto sum = group.load_row(sums + t * labels);
            const float own = factor ? factor[t] : 1.0f;
            for (int g = 0; g < group.blocks; ++g) sum.block[g] -= own * products[t].block[g];
            group.store_row(sums + t * labels, sum);
        }
    });
}

// sums -= factor * (messages P'), for `count` pixels; totals has room for as many numbers.
inline void subtract_penalty(const Penalty& penalty, int64_t labels, const float* messages,
                             const float* factor, float* sums, int64_t count, float* totals) {
    if (!penalty.uniform) {
        int64_t pixel = 0;
        for (; pixel + TILE <= count; pixel += TILE)
            subtract_products<TILE>(penalty, labels, messages + pixel * labels,
                                    factor ? factor + pixel : nullptr, sums + pixel * labels);
        for (; pixel < count; ++pixel)
            subtract_products<1>(penalty, labels, messages + pixel * labels,
                                 factor ? factor + pixel : nullptr, sums + pixel * labels);
        return;
    }
    // One penalty between any two labels: P = c 1 1' + diag(p).
    row_totals(messages, labels, count, totals);
    by_groups(labels, [&](auto group) {
        const auto own = group.load_row(penalty.diagonal);
        for (int64_t pixel = 0; pixel < count; ++pixel) {
            const float scale = factor ? factor[pixel] : 1.0f;
            const float constant = totals[pixel] * penalty.between;
            const auto row = group.load_row(messages + pixel * labels);
            auto sum = group.load_row(sums + pixel * labels);
            for (int g = 0; g < group.blocks; ++g)
                sum.block[g] -= scale * (constant + row.block[g] * own.block[g]);
            group.store_row(sums + pixel * labels, sum);
        }
    });
}

// values P' in place of the values of some vertices.
void penalise(const Penalty& penalty, int64_t labels, float* values, int64_t begin, int64_t end) {
    constexpr int64_t COUNT = 16;
    const float minus[COUNT] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    std::vector<float> before(COUNT * labels);
    float totals[COUNT];
    for (int64_t vertex = begin; vertex < end; vertex += COUNT) {
        const int64_t count = std::min(COUNT, end - vertex);
        float* const own = values + vertex * labels;
        std::copy_n(own, count * labels, before.data());
        std::fill_n(own, count * labels, 0.0f);
        subtract_penalty(penalty, labels, before.data(), minus, own, count, totals);
    }
}

// rows += factor * (W values) with the gain, for pixels next to each other.
inline void add_slices(const Lattice& lattice, int64_t labels, const float* values,
                       const float* factor, float sign, int64_t first, int64_t count,
                       float* rows) {
    const int size = lattice.size;
    by_groups(labels, [&](auto group) {
        for (int64_t pixel = 0; pixel < count; ++pixel) {
            const int32_t* vertices = lattice.slice_vertices + (first + pixel) * size;
            const float* weights = lattice.slice_weights + (first + pixel) * size;
            const float scale = sign * lattice.gain * (factor ? factor[first + pixel] : 1.0f);
            auto sum = group.load_row(rows + pixel * labels);
            for (int k = 0; k < size; ++k)
                group.add(sum, weights[k] * scale, values + vertices[k] * labels);
            group.store_row(rows + pixel * labels, sum);
        }
    });
}

constexpr int64_t HEIGHT = 6;  // rows of a patch that share what a convolution reads

// body(first pixel, row of the messages) for the rows of a patch; of each kernel with a
// convolution, the messages of HEIGHT rows are made together: (HEIGHT, columns, L).
template <class Body>
inline void by_rows(const Term* terms, int count, int64_t labels, const Patch& patch,
                    std::vector<float>& messages, const Body& body) {
    const int64_t width = patch.columns * labels, length = patch.stride * labels;
    messages.resize(count * HEIGHT * width);
    for (int64_t y = 0; y < patch.size; y += HEIGHT) {
        const int64_t end = std::min(y + HEIGHT, patch.size);
        for (int m = 0; m < count; ++m)
            if (terms[m].lattice == nullptr)
                convolve(terms[m].values + patch.first * labels, terms[m].taps, terms[m].radius,
                         patch.size, length, width, y, end, messages.data() + m * HEIGHT * width,
                         width);
        for (int64_t row = y; row < end; ++row)
            body(patch.first + row * patch.stride,
                 [&](int m) { return messages.data() + (m * HEIGHT + row - y) * width; });
    }
}

// unary - sum_m factor_m * (... P_m') for the pixels of a patch; the penalties of the lattices
// have been applied to their vertices.
void update(const Term* terms, int count, int64_t labels, const float* unary, float* updated,
            const Patch& patch) {
    std::vector<float> messages, totals(patch.columns);
    by_rows(terms, count, labels, patch, messages, [&](int64_t first, const auto& row_of) {
        float* const sums = updated + first * labels;
        std::copy_n(unary + first * labels, patch.columns * labels, sums);
        for (int m = 0; m < count; ++m) {
            const Term& term = terms[m];
            if (term.lattice != nullptr)
                add_slices(*term.lattice, labels, term.values, term.factor, -1.0f, first,
                           patch.columns, sums);
            else
                subtract_penalty(term.penalty, labels, row_of(m),
                                 term.factor ? term.factor + first : nullptr, sums, patch.columns,
                                 totals.data());
        }
    });
}

// penalty_grad -= sum_t messages_t q_t'.
template <int T>
inline void subtract_outer(int64_t labels, const float* messages, const float* q,
                           float* penalty_grad) {
    by_groups(labels, [&](auto group) {
        typename decltype(group)::Sum own[T];
        for (int t = 0; t < T; ++t) own[t] = group.load_row(q + t * labels);
        for (int64_t l = 0; l < labels; ++l) {
            auto sum = group.load_row(penalty_grad + l * labels);
            for (int t = 0; t < T; ++t)
                for (int g = 0; g < group.blocks; ++g)
                    sum.block[g] -= messages[t * labels + l] * own[t].block[g];
            group.store_row(penalty_grad + l * labels, sum);
        }
    });
}

// The gradients of `update` from its filtered gradient, for the pixels of a patch: to the logits
// q * (g - <q, g>), g = -sum_m factor_m * (... P_m), and to each P_m that wants one.
void update_grad(const Term* terms, int count, int64_t labels, const float* logits,
                 float* logits_grad, float* const* penalty_grads, const Patch& patch) {
    const int64_t columns = patch.columns;
    std::vector<float> messages, totals(columns), q(columns * labels);
    by_rows(terms, count, labels, patch, messages, [&](int64_t first, const auto& row_of) {
        float* const sums = logits_grad + first * labels;
        softmax(logits + first * labels, labels, q.data(), 0, columns);
        std::fill_n(sums, columns * labels, 0.0f);
        for (int m = 0; m < count; ++m) {
            const Term& term = terms[m];
            float* const own = row_of(m);
            if (term.lattice != nullptr) {
                std::fill_n(own, columns * labels, 0.0f);
                add_slices(*term.lattice, labels, term.values, term.factor, 1.0f, first, columns,
                           own);
            } else if (term.factor != nullptr) {
                scale(term.factor + first, labels, own, own, 0, columns);
            }
            if (float* const penalty_grad = penalty_grads[m]) {
                int64_t pixel = 0;
                for (; pixel + TILE <= columns; pixel += TILE)
                    subtract_outer<TILE>(labels, own + pixel * labels, q.data() + pixel * labels,
                                         penalty_grad);
                for (; pixel < columns; ++pixel)
                    subtract_outer<1>(labels, own + pixel * labels, q.data() + pixel * labels,
                                      penalty_grad);
            }
            subtract_penalty(term.penalty, labels, own, nullptr, sums, columns, totals.data());
        }
        softmax_grad(q.data(), sums, labels, sums, 0, columns);
    });
}

}  // namespace
