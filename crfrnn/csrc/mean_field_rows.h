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

constexpr int64_t FEW = 16;  // rows that stay in the cache from one step to the next

// -v P' for some rows.
void multiply(const Penalty& minus, int64_t labels, const float* v, float* product, int64_t begin,
              int64_t end) {
    float totals[FEW];
    for (int64_t row = begin; row < end; row += FEW) {
        const int64_t count = std::min(FEW, end - row);
        float* const own = product + row * labels;
        std::fill_n(own, count * labels, 0.0f);
        subtract_penalty(minus, labels, v + row * labels, nullptr, own, count, totals);
    }
}

// values P' in place of the values of some vertices.
void penalise(const Penalty& penalty, int64_t labels, float* values, int64_t begin, int64_t end) {
    const float minus[FEW] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    std::vector<float> before(FEW * labels);
    float totals[FEW];
    for (int64_t vertex = begin; vertex < end; vertex += FEW) {
        const int64_t count = std::min(FEW, end - vertex);
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
            if (first + pixel + SLICES_AHEAD < lattice.pixels)
                for (int k = 0; k < size; ++k)
                    prefetch(values + vertices[SLICES_AHEAD * size + k] * labels, labels);
            auto sum = group.load_row(rows + pixel * labels);
            for (int k = 0; k < size; ++k)
                group.add(sum, weights[k] * scale, values + vertices[k] * labels);
            group.store_row(rows + pixel * labels, sum);
        }
    });
}

constexpr int64_t HEIGHT = 6;  // rows of a patch that share what a convolution reads

// The rows of a patch that a convolution along the first axis reads, which slide down with it.
class Strip {
   public:
    // Ready for another patch.
    void reset() { begin_ = end_ = 0; }

    // Of the rows [begin, end) of the patch, whose messages go to (end - begin, columns, L).
    void convolve_rows(const Term& term, int64_t labels, const Patch& patch, int64_t begin,
                       int64_t end, float* messages) {
        const int64_t width = patch.columns * labels, radius = term.first.radius;
        const float* values = term.values + patch.first * labels;
        int64_t above = 0, below = patch.size, length = patch.stride * labels;
        if (term.last.middle != nullptr) {
            slide(term, labels, patch, std::max<int64_t>(begin - radius, 0),
                  std::min(end + radius, patch.size));
            values = rows_.data();
            above = begin_;
            below = end_;
            length = width;
        }
        convolve(values, term.first.middle, radius, below - above, length, width, begin - above,
                 end - above, messages, width);
    }

   private:
    // Hold the rows [begin, end), each convolved along the last axis.
    void slide(const Term& term, int64_t labels, const Patch& patch, int64_t begin, int64_t end) {
        const int64_t width = patch.columns * labels;
        const int64_t room = 2 * (2 * term.first.radius + HEIGHT) * width;
        if (static_cast<int64_t>(rows_.size()) < room) rows_.resize(room);
        if ((end - begin_) * width > room) {
            std::memmove(rows_.data(), rows_.data() + (begin - begin_) * width,
                         (end_ - begin) * width * sizeof(float));
            begin_ = begin;
        }
        const int64_t left = std::min(patch.left, term.last.radius);
        const int64_t right = std::min(patch.right, term.last.radius);
        const int64_t size = left + patch.columns + right;
        if (term.before != nullptr && static_cast<int64_t>(scaled_.size()) < size * labels)
            scaled_.resize(size * labels);
        for (; end_ < end; ++end_) {
            const int64_t first = patch.first + end_ * patch.stride - left;
            const float* v = term.values + first * labels;
            if (term.before != nullptr) {
                scale(term.before, labels, term.values, scaled_.data(), first, first + size);
                v = scaled_.data();
            }
            convolve(v, term.last.middle, term.last.radius, size, labels, labels, left,
                     left + patch.columns, rows_.data() + (end_ - begin_) * width, labels);
        }
    }

    int64_t begin_ = 0, end_ = 0;
    std::vector<float> rows_, scaled_;
};

// body(first pixel, row of the messages) for the rows of a patch; of each kernel with a
// convolution, the messages of HEIGHT rows are made together: (HEIGHT, columns, L).
template <class Body>
inline void by_rows(const Term* terms, int count, int64_t labels, const Patch& patch,
                    const Body& body) {
    const int64_t width = patch.columns * labels;
    // Kept from patch to patch: fresh memory would cost more than what is done in it.
    static thread_local std::vector<Strip> strips;
    static thread_local std::vector<float> messages;
    if (strips.size() < static_cast<std::size_t>(count)) strips.resize(count);
    for (Strip& strip : strips) strip.reset();
    if (static_cast<int64_t>(messages.size()) < count * HEIGHT * width)
        messages.resize(count * HEIGHT * width);
    for (int64_t y = 0; y < patch.size; y += HEIGHT) {
        const int64_t end = std::min(y + HEIGHT, patch.size);
        for (int m = 0; m < count; ++m)
            if (terms[m].lattice == nullptr)
                strips[m].convolve_rows(terms[m], labels, patch, y, end,
                                        messages.data() + m * HEIGHT * width);
        for (int64_t row = y; row < end; ++row)
            body(patch.first + row * patch.stride,
                 [&](int m) { return messages.data() + (m * HEIGHT + row - y) * width; });
    }
}

// <w_i, the filtered values_i> for the pixels of a patch.
void patch_dots(const Term& term, int64_t labels, const float* w, float* dots,
                const Patch& patch) {
    by_rows(&term, 1, labels, patch, [&](int64_t first, const auto& row_of) {
        row_dots(row_of(0), w + first * labels, labels, dots + first, 0, patch.columns);
    });
}

// unary - sum_m factor_m * (... P_m') for the pixels of a patch, or the softmax of that; the
// penalties of the lattices have been applied to their vertices.
void update(const Term* terms, int count, int64_t labels, const float* unary, bool to_q,
            float* updated, const Patch& patch) {
    std::vector<float> totals(patch.columns);
    by_rows(terms, count, labels, patch, [&](int64_t first, const auto& row_of) {
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
        if (to_q) softmax(sums, labels, sums, 0, patch.columns);
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
// of q, q * (g - <q, g>), g = -sum_m factor_m * (... P_m), and to each P_m that wants one. The
// former is added to grad_sum, which makes new_sum unless that is null.
void update_grad(const Term* terms, int count, int64_t labels, const float* q, float* logits_grad,
                 const float* grad_sum, float* new_sum, float* const* penalty_grads,
                 const Patch& patch) {
    const int64_t columns = patch.columns;
    std::vector<float> totals(columns);
    by_rows(terms, count, labels, patch, [&](int64_t first, const auto& row_of) {
        float* const sums = logits_grad + first * labels;
        const float* const own_q = q + first * labels;
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
                    subtract_outer<TILE>(labels, own + pixel * labels, own_q + pixel * labels,
                                         penalty_grad);
                for (; pixel < columns; ++pixel)
                    subtract_outer<1>(labels, own + pixel * labels, own_q + pixel * labels,
                                      penalty_grad);
            }
            subtract_penalty(term.penalty, labels, own, nullptr, sums, columns, totals.data());
        }
        softmax_grad(own_q, sums, labels, sums, 0, columns);
        if (new_sum != nullptr)
            for (int64_t k = 0; k < columns * labels; ++k)
                new_sum[first * labels + k] = grad_sum[first * labels + k] + sums[k];
    });
}

}  // namespace
