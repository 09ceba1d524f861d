#include "mean_field.h"

#include <algorithm>
#include <numeric>

#include "filters.h"
#include "scratch.h"

namespace crfrnn {

namespace {

constexpr int64_t PATCH_COLUMNS = 32;  // so many that what a convolution reads stays in the cache
constexpr int64_t PATCH_PIXELS = 512;  // where no convolution is left to do
constexpr float UNIT[] = {0, 0, 0, 1, 0, 0, 0};  // taps that change nothing

// The middle tap of an axis.
const float* taps_of(const Separable& kernel, int axis) {
    const float* taps = kernel.taps;
    for (int k = 0; k < axis; ++k) taps += 2 * (kernel.radii[k] + PADDING) + 1;
    return taps + kernel.radii[axis] + PADDING;
}

}  // namespace

MeanField::MeanField(Task task, const Kernel* kernels, int count, int64_t batch, int64_t pixels,
                     int64_t labels, Team& team)
    : kernels_(kernels), count_(count), batch_(batch), pixels_(pixels), labels_(labels),
      team_(team), separable_(false), line_(1), height_(1), stride_(pixels), columns_(count * labels * labels),
      diagonals_(count * labels), penalties_(count), buffers_(count) {
    const int64_t rows = batch * pixels * labels;
    std::vector<int64_t> sizes(count);
    for (int m = 0; m < count; ++m) {
        const Kernel& kernel = kernels[m];
        if (kernel.lattice != nullptr) {
            sizes[m] = 2 * (kernel.lattice->vertices + 1) * labels;
        } else {
            const Separable& spatial = *kernel.separable;
            separable_ = true;
            line_ = spatial.shape[spatial.axes - 1];
            if (spatial.axes > 1) {
                height_ = spatial.shape[0];
                stride_ = pixels / height_;
            }
            sizes[m] = spatial.axes > 2 ? 2 * rows : rows;
        }
        // The columns of the penalty, and whether there is one number between any two labels.
        const float* const matrix = kernel.penalty;
        const float between = labels > 1 ? matrix[1] : 0.0f;
        bool uniform = true;
        float* const columns = columns_.data() + m * labels * labels;
        for (int64_t l = 0; l < labels; ++l) {
            for (int64_t k = 0; k < labels; ++k) {
                columns[k * labels + l] = matrix[l * labels + k];
                if (k != l) uniform = uniform && matrix[l * labels + k] == between;
            }
            diagonals_[m * labels + l] = matrix[l * labels + l] - between;
        }
        penalties_[m] = {columns, diagonals_.data() + m * labels, between, uniform};
    }
    const int64_t q_size = task == UPDATE ? rows : 0;
    q_ = Scratch::floats(std::accumulate(sizes.begin(), sizes.end(), q_size));
    float* next = q_ + q_size;
    for (int m = 0; m < count; ++m) {
        buffers_[m] = next;
        next += sizes[m];
    }
}

void MeanField::filter_lines(const float* logits, float* q, const float* rows, bool transposed) {
    if (!separable_) {
        if (logits == nullptr) return;
        team_.for_rows(batch_ * pixels_, GRAIN / labels_ + 1,
                      [&](int64_t begin, int64_t end) {
                          loops().softmax(logits, labels_, q, begin, end);
                      });
        return;
    }
    const int64_t lines = batch_ * pixels_ / line_;
    team_.for_rows(lines, GRAIN / (line_ * labels_) + 1, [&](int64_t begin, int64_t end) {
        std::vector<float> scaled(line_ * labels_);
        for (int64_t line = begin; line < end; ++line) {
            const int64_t first = line * line_;
            if (logits != nullptr) loops().softmax(logits, labels_, q, first, first + line_);
            for (int m = 0; m < count_; ++m) {
                if (kernels_[m].separable == nullptr) continue;
                const Separable& spatial = *kernels_[m].separable;
                const float* const factor = transposed ? kernels_[m].after : kernels_[m].before;
                const float* v = rows + first * labels_;
                if (factor != nullptr) {
                    loops().scale(factor, labels_, rows, scaled.data(), first, first + line_);
                    v = scaled.data();
                }
                loops().convolve(v, taps_of(spatial, spatial.axes - 1),
                                 spatial.radii[spatial.axes - 1], line_, labels_, labels_, 0,
                                 line_, buffers_[m] + first * labels_, labels_);
            }
        }
    });
}

std::vector<Term> MeanField::filter(const float* rows, bool transposed) {
    std::vector<Term> terms(count_);
    for (int m = 0; m < count_; ++m) {
        const Kernel& kernel = kernels_[m];
        Term& term = terms[m];
        term.factor = transposed ? kernel.before : kernel.after;
        term.lattice = kernel.lattice;
        term.penalty = penalties_[m];
        if (transposed) term.penalty.rows = kernel.penalty;
        if (kernel.lattice != nullptr) {
            const int64_t table = (kernel.lattice->vertices + 1) * labels_;
            float* const values = splat_and_blur(
                *kernel.lattice, labels_, transposed ? kernel.after : kernel.before, rows,
                transposed, buffers_[m], buffers_[m] + table, team_);
            // Backwards, the penalty's own gradient takes the messages without it.
            if (!transposed)
                team_.for_rows(kernel.lattice->vertices, GRAIN / labels_ + 1,
                               [&](int64_t begin, int64_t end) {
                                  loops().penalise(term.penalty, labels_, values, begin, end);
                              });
            term.values = values;
            continue;
        }
        const Separable& spatial = *kernel.separable;
        float* v = buffers_[m];
        float* other = v + batch_ * pixels_ * labels_;
        int64_t before = batch_ * height_, length = stride_ * labels_;
        for (int axis = 1; axis < spatial.axes - 1; ++axis) {
            length /= spatial.shape[axis];
            convolve_axis(taps_of(spatial, axis), spatial.radii[axis], before,
                          spatial.shape[axis], length, v, other, team_);
            before *= spatial.shape[axis];
            std::swap(v, other);
        }
        term.values = v;
        term.taps = spatial.axes > 1 ? taps_of(spatial, 0) : UNIT + PADDING;
        term.radius = spatial.axes > 1 ? spatial.radii[0] : 0;
    }
    return terms;
}

int64_t MeanField::num_patches() const {
    if (height_ == 1) return (batch_ * pixels_ + PATCH_PIXELS - 1) / PATCH_PIXELS;
    return batch_ * ((stride_ + PATCH_COLUMNS - 1) / PATCH_COLUMNS);
}

Patch MeanField::patch(int64_t number) const {
    if (height_ == 1) {
        const int64_t first = number * PATCH_PIXELS;
        return {first, 1, 1, std::min(PATCH_PIXELS, batch_ * pixels_ - first)};
    }
    const int64_t across = (stride_ + PATCH_COLUMNS - 1) / PATCH_COLUMNS;
    const int64_t column = number % across * PATCH_COLUMNS;
    return {number / across * pixels_ + column, height_, stride_,
            std::min(PATCH_COLUMNS, stride_ - column)};
}

template <class Body>
void MeanField::by_patches(const Body& body) const {
    const int64_t count = num_patches();
    const int64_t grain = GRAIN * count / (batch_ * pixels_ * labels_) + 1;
    team_.for_rows(count, grain, [&](int64_t begin, int64_t end) {
        for (int64_t number = begin; number < end; ++number) body(number, patch(number));
    });
}

void MeanField::update(int iterations, const float* logits, const float* unary, float* updated) {
    for (int iteration = 0; iteration < iterations; ++iteration) {
        filter_lines(iteration == 0 ? logits : updated, q_, q_, false);
        const std::vector<Term> terms = filter(q_, false);
        by_patches([&](int64_t, const Patch& patch) {
            loops().update(terms.data(), count_, labels_, unary, updated, patch);
        });
    }
}

void MeanField::update_grad(const float* logits, const float* grad, float* logits_grad,
                            float* penalty_grads, float* grad_sum, bool begins) {
    if (grad_sum != nullptr)
        team_.for_rows(batch_ * pixels_ * labels_, GRAIN, [&](int64_t begin, int64_t end) {
            if (begins) {
                std::copy(grad + begin, grad + end, grad_sum + begin);
            } else {
                for (int64_t k = begin; k < end; ++k) grad_sum[k] += grad[k];
            }
        });
    filter_lines(nullptr, nullptr, grad, true);
    const std::vector<Term> terms = filter(grad, true);
    // Each patch sums for itself, and the patches are added in their order.
    const int64_t matrices = count_ * labels_ * labels_;
    std::vector<float> partial(penalty_grads != nullptr ? num_patches() * matrices : 0);
    by_patches([&](int64_t number, const Patch& patch) {
        std::vector<float*> own(count_, nullptr);
        if (penalty_grads != nullptr)
            for (int m = 0; m < count_; ++m)
                own[m] = partial.data() + number * matrices + m * labels_ * labels_;
        loops().update_grad(terms.data(), count_, labels_, logits, logits_grad, own.data(), patch);
    });
    if (penalty_grads == nullptr) return;
    std::fill_n(penalty_grads, matrices, 0.0f);
    for (int64_t number = 0; number < num_patches(); ++number)
        for (int64_t k = 0; k < matrices; ++k) penalty_grads[k] += partial[number * matrices + k];
}

}  // namespace crfrnn
