#include "mean_field.h"

#include <algorithm>
#include <numeric>

#include "filters.h"
#include "scratch.h"

namespace crfrnn {

namespace {

constexpr int64_t TOGETHER = 1 << 20;  // floats of the rows of images that are done together

// The spatial kernel whose grid is that of all.
const Separable* grid_of(const Kernel* kernels, int count) {
    const Separable* grid = nullptr;
    for (int m = 0; m < count; ++m)
        if (kernels[m].separable != nullptr) grid = kernels[m].separable;
    return grid;
}

}  // namespace

MeanField::MeanField(const Kernel* kernels, int count, int64_t batch, int64_t pixels,
                     int64_t labels, Team& team)
    : kernels_(kernels), count_(count), batch_(batch), pixels_(pixels), labels_(labels),
      team_(team), rows_(batch * pixels * labels),
      together_(std::clamp<int64_t>(TOGETHER / (pixels * labels), 1, batch)),
      some_rows_(together_ * pixels * labels),
      patches_(grid_of(kernels, count), batch, pixels, labels), columns_(count * labels * labels),
      diagonals_(count * labels), penalties_(count), sizes_(count, 0), buffers_(count) {
    for (int m = 0; m < count; ++m) {
        const Kernel& kernel = kernels[m];
        if (kernel.lattice != nullptr) {
            sizes_[m] = 2 * (kernel.lattice->vertices + 1) * labels;
        } else if (kernel.separable->axes > 2) {
            sizes_[m] = 2 * some_rows_;
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
}

float* MeanField::reserve(int64_t extra) {
    float* const first = Scratch::floats(std::accumulate(sizes_.begin(), sizes_.end(), extra));
    float* next = first + extra;
    for (int m = 0; m < count_; ++m) {
        buffers_[m] = next;
        next += sizes_[m];
    }
    return first;
}

template <class Body>
void MeanField::by_images(const Body& body) const {
    for (int64_t first = 0; first < batch_; first += together_)
        body(Images{first, std::min(first + together_, batch_)});
}

std::vector<Term> MeanField::filter(const Images& images, const float* rows, bool transposed) {
    std::vector<Term> terms(count_);
    const int64_t first_pixel = images.begin * pixels_, num_pixels = images.count() * pixels_;
    for (int m = 0; m < count_; ++m) {
        const Kernel& kernel = kernels_[m];
        const float* const before = transposed ? kernel.after : kernel.before;
        Term& term = terms[m];
        term.factor = transposed ? kernel.before : kernel.after;
        term.lattice = kernel.lattice;
        term.penalty = penalties_[m];
        if (transposed) term.penalty.rows = kernel.penalty;
        if (kernel.lattice != nullptr) {
            const int64_t table = (kernel.lattice->vertices + 1) * labels_;
            const Part part = part_of(*kernel.lattice, first_pixel, first_pixel + num_pixels);
            float* const values =
                splat_and_blur(*kernel.lattice, part, labels_, 1, before, rows, transposed,
                               buffers_[m], buffers_[m] + table, team_);
            // Backwards, the penalty's own gradient takes the messages without it.
            if (!transposed)
                team_.for_rows(part.last - part.first, GRAIN / labels_ + 1,
                               [&](int64_t begin, int64_t end) {
                                   loops().penalise(term.penalty, labels_, values,
                                                    part.first + begin, part.first + end);
                               });
            term.values = values;
            continue;
        }
        const Separable& spatial = *kernel.separable;
        set_axes(spatial, term);
        if (spatial.axes <= 2) {
            term.values = rows;
            term.before = before;
            continue;
        }
        term.last = {};
        const int64_t at = first_pixel * labels_;
        float* v = buffers_[m];
        float* other = v + some_rows_;
        const float* lines = rows + at;
        if (before != nullptr) {
            scale_rows(before + first_pixel, labels_, lines, other, num_pixels, team_);
            lines = other;
        }
        const int last = spatial.axes - 1;
        convolve_axis(taps_of(spatial, last), num_pixels / spatial.shape[last],
                      spatial.shape[last], labels_, lines, v, team_);
        int64_t repeats = images.count() * patches_.height(), length = patches_.stride() * labels_;
        for (int axis = 1; axis < last; ++axis) {
            length /= spatial.shape[axis];
            convolve_axis(taps_of(spatial, axis), repeats, spatial.shape[axis], length, v, other,
                          team_);
            repeats *= spatial.shape[axis];
            std::swap(v, other);
        }
        term.values = v - at;
    }
    return terms;
}

void MeanField::update(int iterations, const float* start, const float* unary, float* history,
                       float* updated) {
    float* const scratch = reserve(history != nullptr ? 0 : some_rows_);
    by_images([&](const Images& images) {
        const int64_t first = images.begin * pixels_;
        // The last update reads the scratch, so what it makes may be where others keep their q.
        const auto q_of = [&](int t) {
            if (history != nullptr) return history + t * rows_;
            return (iterations - t) % 2 == 1 ? scratch - first * labels_ : updated;
        };
        team_.for_rows(images.count() * pixels_, GRAIN / labels_ + 1,
                       [&](int64_t begin, int64_t end) {
                           loops().softmax(start, labels_, q_of(0), first + begin, first + end);
                       });
        for (int t = 0; t < iterations; ++t) {
            const std::vector<Term> terms = filter(images, q_of(t), false);
            const bool last = t + 1 == iterations;
            float* const next = last ? updated : q_of(t + 1);
            patches_.for_each(images, team_, [&](int64_t, const Patch& patch) {
                loops().update(terms.data(), count_, labels_, unary, !last, next, patch);
            });
        }
    });
}

void MeanField::update_grad(int iterations, const float* history, const float* grad,
                            float* start_grad, float* unary_grad, float* penalty_grads,
                            const KernelGrad* const* kernel_grads) {
    // The last of these is the gradient of the start.
    const int between = start_grad != nullptr ? iterations - 1 : iterations;
    int64_t to_kernels = 0;
    for (int m = 0; m < count_; ++m)
        if (const KernelGrad* const to = kernel_grads[m])
            to_kernels = std::max(
                to_kernels,
                some_rows_ + kernel_grad_floats(kernels_[m], *to, batch_, pixels_, labels_));
    float* const of_kernels = reserve(std::min(between, 2) * some_rows_ + to_kernels);
    float* const scratch = of_kernels + to_kernels;
    // Each patch sums for itself, and the patches are added in their order.
    const int64_t matrices = count_ * labels_ * labels_;
    std::vector<float> partial(penalty_grads != nullptr ? patches_.count() * matrices : 0);
    if (penalty_grads != nullptr) std::fill_n(penalty_grads, matrices, 0.0f);
    by_images([&](const Images& images) {
        const int64_t first_pixel = images.begin * pixels_;
        const int64_t first_patch = images.begin * patches_.count_of_image();
        const int64_t num_patches = images.count() * patches_.count_of_image();
        float* const sent = of_kernels - first_pixel * labels_;
        const float* received = grad;
        const float* grad_sum = grad;
        for (int t = iterations - 1; t >= 0; --t) {
            const float* const q = history + t * rows_;
            for (int m = 0; m < count_; ++m) {
                const KernelGrad* const to = kernel_grads[m];
                if (to == nullptr) continue;
                team_.for_rows(images.count() * pixels_, GRAIN / labels_ + 1,
                               [&](int64_t begin, int64_t end) {
                                   loops().multiply(penalties_[m], labels_, q, sent,
                                                    first_pixel + begin, first_pixel + end);
                               });
                const Message message{sent, kernels_[m].before, received, kernels_[m].after};
                add_kernel_grad(kernels_[m], images, pixels_, batch_, labels_, message, false, *to,
                                of_kernels + some_rows_, team_);
            }
            const std::vector<Term> terms = filter(images, received, true);
            const bool to_start = t == 0 && start_grad != nullptr;
            float* const own = scratch + (iterations - 1 - t) % 2 * some_rows_;
            float* const next = to_start ? start_grad : own - first_pixel * labels_;
            float* const new_sum = to_start ? nullptr : unary_grad;
            float* const sums = partial.data() + first_patch * matrices;
            if (penalty_grads != nullptr) std::fill_n(sums, num_patches * matrices, 0.0f);
            patches_.for_each(images, team_, [&](int64_t number, const Patch& patch) {
                std::vector<float*> to(count_, nullptr);
                if (penalty_grads != nullptr)
                    for (int m = 0; m < count_; ++m)
                        to[m] = partial.data() + number * matrices + m * labels_ * labels_;
                loops().update_grad(terms.data(), count_, labels_, q, next, grad_sum, new_sum,
                                    to.data(), patch);
            });
            if (penalty_grads != nullptr)
                for (int64_t number = 0; number < num_patches; ++number)
                    for (int64_t k = 0; k < matrices; ++k)
                        penalty_grads[k] += sums[number * matrices + k];
            received = next;
            grad_sum = unary_grad;
        }
    });
}

}  // namespace crfrnn
