// The rows of a mean-field update and of its gradient, after the filters: the twin of
// `mean_field_update` in inference.py.

namespace {

using crfrnn::Lattice;
using crfrnn::Band;
using crfrnn::Pass;
using crfrnn::Penalty;
using crfrnn::Sink;
using crfrnn::Term;

// factor * v of pixels [begin, end), to rows that begin at `scaled`.
void scale(const float* factor, int64_t labels, const float* v, float* scaled, int64_t begin,
           int64_t end) {
    by_groups(labels, [=](auto group) {
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
    by_groups(labels, [=](auto group) {
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
    by_groups(labels, [=](auto group) {
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
    float* const before = workspace(0, FEW * labels);
    float totals[FEW];
    for (int64_t vertex = begin; vertex < end; vertex += FEW) {
        const int64_t count = std::min(FEW, end - vertex);
        float* const own = values + vertex * labels;
        std::copy_n(own, count * labels, before);
        std::fill_n(own, count * labels, 0.0f);
        subtract_penalty(penalty, labels, before, minus, own, count, totals);
    }
}

// rows -= factor * messages, for `count` pixels.
inline void subtract(const float* messages, const float* factor, int64_t stride, int64_t count,
                     float* rows) {
    by_groups(stride, [=](auto group) {
        for (int64_t pixel = 0; pixel < count; ++pixel) {
            const float own = factor ? factor[pixel] : 1.0f;
            auto sum = group.load_row(rows + pixel * stride);
            const auto row = group.load_row(messages + pixel * stride);
            for (int g = 0; g < group.blocks; ++g) sum.block[g] -= own * row.block[g];
            group.store_row(rows + pixel * stride, sum);
        }
    });
}

// rows += factor * (W values) with the gain, for pixels next to each other.
inline void add_slices(const Lattice& lattice, int64_t labels, const float* values,
                       const float* factor, float sign, int64_t first, int64_t count,
                       float* rows) {
    const int32_t* const every_vertex = lattice.slice_vertices + first * lattice.size;
    const float* const every_weight = lattice.slice_weights + first * lattice.size;
    const int64_t left = lattice.pixels - first;
    const float gain = sign * lattice.gain;
    by_groups(labels, [=](auto group) {
        by_size(lattice.size, [=](auto size) {
            for (int64_t pixel = 0; pixel < count; ++pixel) {
                const int32_t* const vertices = every_vertex + pixel * size;
                const float* const weights = every_weight + pixel * size;
                const float scale = gain * (factor ? factor[first + pixel] : 1.0f);
                if (pixel + SLICES_AHEAD < left)
                    for (int k = 0; k < size; ++k)
                        prefetch(values + vertices[SLICES_AHEAD * size + k] * labels, labels);
                auto sum = group.load_row(rows + pixel * labels);
                for (int k = 0; k < size; ++k)
                    group.add(sum, weights[k] * scale, values + vertices[k] * labels);
                group.store_row(rows + pixel * labels, sum);
            }
        });
    });
}

// values = sums, with those that other bands have of the same vertices, times P' if there is a
// penalty; for some of the vertices.
void merge(int64_t stride, const float* sums, const int32_t* more, const int32_t* offsets,
           const Penalty* penalty, float* values, int64_t begin, int64_t end) {
    by_groups_and_rows(stride, begin, end, [=](auto group, int64_t first, int64_t last) {
        for (int64_t vertex = first; vertex < last; ++vertex) {
            auto sum = group.load_row(sums + vertex * stride);
            for (int32_t k = offsets[vertex]; k < offsets[vertex + 1]; ++k)
                group.add(sum, 1.0f, sums + more[k] * stride);
            group.store_row(values + vertex * stride, sum);
        }
    });
    if (penalty != nullptr) penalise(*penalty, stride, values, begin, end);
}

// A band, segment by segment: a few pixels next to each other, for which everything is done while
// their rows are in the cache.
class Segments {
   public:
    Segments(const Pass& pass, const Band& band)
        : pass_(pass), band_(band), stride_(pass.stride), together_(pixels_together(stride_)),
          rows_(workspace(0, together_ * stride_)),
          messages_(workspace(1, together_ * stride_)) {}

    // make(first pixel, count, rows, messages of term m): fill the padded rows, which go to the sinks.
    template <class Make>
    void each(const Make& make) const {
        clear_sums();
        // What goes along a row needs all of it; what does not, some columns at a time.
        bool along = false;
        for (int m = 0; m < pass_.num_terms; ++m) along |= pass_.terms[m].columns.taps != nullptr;
        for (int m = 0; m < pass_.num_sinks; ++m) along |= pass_.sinks[m].columns.taps != nullptr;
        const int64_t some = along ? pass_.width : std::min<int64_t>(pass_.width, 512);
        // Rows of pixels that share what the first axis reads.
        const int64_t height = some > 1024 ? 3 : 6;
        for (int64_t left = 0; left < pass_.width; left += some)
            for (int64_t top = band_.begin; top < band_.end; top += height) {
                const int64_t bottom = std::min(top + height, band_.end);
                const int64_t right = std::min(left + some, pass_.width);
                for (int m = 0; m < pass_.num_terms; ++m) fill_lines(m, top, bottom, left, right);
                for (int64_t y = top; y < bottom; ++y) row(y, y - top, left, right, make);
            }
    }

   private:
    void clear_sums() const {
        for (int m = 0; m < pass_.num_sinks; ++m) {
            const Sink& sink = pass_.sinks[m];
            if (sink.lattice == nullptr) continue;
            for (int64_t k = sink.bands[band_.number]; k < sink.bands[band_.number + 1]; ++k)
                std::fill_n(sink.sums + sink.touched[k] * stride_, stride_, 0.0f);
        }
    }

    // Of a term, the first axis for some rows of pixels: (rows, sites, stride).
    void fill_lines(int m, int64_t top, int64_t bottom, int64_t left, int64_t right) const {
        const Term& term = pass_.terms[m];
        if (term.lattice != nullptr) return;
        const bool along = term.columns.taps != nullptr;
        const int64_t sites = along ? term.width : right - left, length = term.width * stride_;
        float* const lines = workspace(2 + m, (bottom - top) * sites * stride_);
        correlate(term.rows,
                  term.values + band_.image * term.rows.in_size * length +
                      (along ? 0 : left * stride_),
                  length, sites * stride_, top, bottom, lines, sites * stride_);
    }

    // The sink's own line of pixels, or a part of it.
    float* line_of(int m, int64_t y) const {
        const Sink& sink = pass_.sinks[m];
        if (sink.columns.taps != nullptr)
            return workspace(2 + pass_.num_terms + m, pass_.width * stride_);
        return lines_of(sink, y);
    }
    float* lines_of(const Sink& sink, int64_t y) const {
        return sink.lines +
               (band_.image * (band_.size / pass_.width) + y) * sink.width * stride_;
    }

    template <class Make>
    void row(int64_t y, int64_t line, int64_t left, int64_t right, const Make& make) const {
        const int64_t start = y * pass_.width, first = band_.first_pixel + start;
        right = std::min(right, band_.size - start);
        for (int64_t x = left; x < right; x += together_) {
            const int64_t count = std::min(together_, right - x);
            make(first + x, count, rows_, [&](int m) {
                const Term& term = pass_.terms[m];
                const bool along = term.columns.taps != nullptr;
                const int64_t sites = along ? term.width : right - left;
                float* const values = workspace(2 + m, 0) + line * sites * stride_;
                if (!along) return values + (x - left) * stride_;
                correlate(term.columns, values, stride_, stride_, x, x + count, messages_,
                          stride_);
                return messages_;
            });
            for (int m = 0; m < pass_.num_sinks; ++m) {
                const Sink& sink = pass_.sinks[m];
                if (sink.lattice != nullptr)
                    scatter(*sink.lattice, stride_, sink.places, sink.factor, rows_, first + x,
                            count, sink.sums);
                else if (sink.factor != nullptr)
                    scale(sink.factor + first + x, stride_, rows_, line_of(m, y) + x * stride_, 0,
                          count);
                else
                    std::copy_n(rows_, count * stride_, line_of(m, y) + x * stride_);
            }
        }
        for (int m = 0; m < pass_.num_sinks; ++m) {
            const Sink& sink = pass_.sinks[m];
            if (sink.lattice == nullptr && sink.columns.taps != nullptr)
                correlate(sink.columns, line_of(m, y), stride_, stride_, 0, sink.width,
                          lines_of(sink, y), stride_);
        }
    }

    const Pass& pass_;
    const Band& band_;
    const int64_t stride_, together_;
    float* const rows_;
    float* const messages_;
};

// `rows`, (BN, L), to the sinks.
void send(const Pass& pass, const float* rows, const Band& band) {
    Segments(pass, band).each([&](int64_t first, int64_t count, float* to, const auto&) {
        pad_rows(rows + first * pass.labels, pass.labels, pass.stride, count, pass.rows - first,
                 0.0f, to);
    });
}

// unary - sum_m factor_m * (... P_m') for the pixels of a band, which go to `updated` unless that is
// null; and their softmax, if wanted, to the sinks, and to `history` unless that is null.
void update(const Pass& pass, const float* unary, float* updated, bool to_q, float* history,
            const Band& band) {
    const int64_t labels = pass.labels, stride = pass.stride;
    float totals[64];
    Segments(pass, band).each([&](int64_t first, int64_t count, float* rows,
                                  const auto& messages) {
        pad_rows(unary + first * labels, labels, stride, count, pass.rows - first, 0.0f, rows);
        for (int m = 0; m < pass.num_terms; ++m) {
            const Term& term = pass.terms[m];
            const float* const factor = term.factor != nullptr ? term.factor + first : nullptr;
            if (term.lattice != nullptr)
                add_slices(*term.lattice, stride, term.values, term.factor, -1.0f, first, count,
                           rows);
            else if (term.penalised)
                subtract(messages(m), factor, stride, count, rows);
            else
                subtract_penalty(term.penalty, stride, messages(m), factor, rows, count, totals);
        }
        if (updated != nullptr)
            unpad_rows(rows, labels, stride, count, updated + first * labels);
        if (to_q) softmax_padded(rows, labels, stride, count);
        if (history != nullptr)
            unpad_rows(rows, labels, stride, count, history + first * labels);
    });
}

// penalty_grad, (L, stride), -= sum_t messages_t q_t'.
template <int T>
inline void subtract_outer(int64_t labels, int64_t stride, const float* messages, const float* q,
                           float* penalty_grad) {
    by_groups(stride, [=](auto group) {
        typename decltype(group)::Sum own[T];
        for (int t = 0; t < T; ++t) own[t] = group.load_row(q + t * stride);
        for (int64_t l = 0; l < labels; ++l) {
            auto sum = group.load_row(penalty_grad + l * stride);
            for (int t = 0; t < T; ++t)
                for (int g = 0; g < group.blocks; ++g)
                    sum.block[g] -= messages[t * stride + l] * own[t].block[g];
            group.store_row(penalty_grad + l * stride, sum);
        }
    });
}

// The gradients of `update` from its filtered gradient, for the pixels of a band: to the logits
// of q, q * (g - <q, g>), g = -sum_m factor_m * (... P_m), and to each P_m that wants one. The
// former go to `logits_grad`, and added to grad_sum make new_sum, unless these are null.
void update_grad(const Pass& pass, const float* q, float* logits_grad, const float* grad_sum,
                 float* new_sum, float* const* penalty_grads, const Band& band) {
    const int64_t labels = pass.labels, stride = pass.stride, together = pixels_together(stride);
    const int slot = 2 + pass.num_terms + pass.num_sinks;
    float* const own_q = workspace(slot, together * stride);
    float* const sliced = workspace(slot + 1, together * stride);
    float totals[64];
    Segments(pass, band).each([&](int64_t first, int64_t count, float* rows,
                                  const auto& messages) {
        pad_rows(q + first * labels, labels, stride, count, pass.rows - first, 0.0f, own_q);
        std::fill_n(rows, count * stride, 0.0f);
        for (int m = 0; m < pass.num_terms; ++m) {
            const Term& term = pass.terms[m];
            float* own = sliced;
            if (term.lattice != nullptr) {
                std::fill_n(own, count * stride, 0.0f);
                add_slices(*term.lattice, stride, term.values, term.factor, 1.0f, first, count,
                           own);
            } else {
                own = messages(m);
                if (term.factor != nullptr)
                    scale(term.factor + first, stride, own, own, 0, count);
            }
            if (float* const penalty_grad = penalty_grads[m]) {
                int64_t pixel = 0;
                for (; pixel + TILE <= count; pixel += TILE)
                    subtract_outer<TILE>(labels, stride, own + pixel * stride,
                                         own_q + pixel * stride, penalty_grad);
                for (; pixel < count; ++pixel)
                    subtract_outer<1>(labels, stride, own + pixel * stride,
                                      own_q + pixel * stride, penalty_grad);
            }
            subtract_penalty(term.penalty, stride, own, nullptr, rows, count, totals);
        }
        softmax_grad(own_q, stride, count, rows);
        if (logits_grad != nullptr)
            unpad_rows(rows, labels, stride, count, logits_grad + first * labels);
        if (new_sum != nullptr)
            for (int64_t k = 0; k < count; ++k)
                for (int64_t l = 0; l < labels; ++l) {
                    const int64_t at = (first + k) * labels + l;
                    new_sum[at] = grad_sum[at] + rows[k * stride + l];
                }
    });
}

}  // namespace
