// Whole mean-field updates: what the rows of mean_field_rows.h and the filters make together.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel_grads.h"
#include "kernels.h"
#include "loops.h"
#include "patches.h"
#include "threads.h"

namespace crfrnn {

// unary - sum_m after_m * K_m (before_m * softmax(logits)) P_m', all rows (BN, L), and its gradient.
//
// An update goes through memory twice: (1) splat and blur, on the vertices; (2) patch by patch, the
// convolutions, the slices and the penalties. The penalty of a lattice is applied on its vertices.
// On grids of more than two axes all but the first are convolved ahead of (2).
class MeanField {
   public:
    MeanField(const Kernel* kernels, int count, int64_t batch, int64_t pixels, int64_t labels,
              Team& team);

    // From `start` to `updated`, which may be it, but not the unary. Unless history is null, q ahead
    // of each update is in it: (iterations, BN, L).
    void update(int iterations, const float* start, const float* unary, float* history,
                float* updated);

    // The gradients of these updates from that of the last: to the start and to the unary, (BN, L),
    // and to the penalties, (count, L, L); each may be null. Where that of the start is, the unary
    // was the start, and receives both. kernel_grads, (count,), has null for what does not learn.
    void update_grad(int iterations, const float* history, const float* grad, float* start_grad,
                     float* unary_grad, float* penalty_grads,
                     const KernelGrad* const* kernel_grads);

   private:
    // Scratch for the filters, and `extra` floats more, which come first.
    float* reserve(int64_t extra);
    // body(images) for a few images at a time: what they are between two updates is in memory that
    // the next ones take again.
    template <class Body>
    void by_images(const Body& body) const;
    // Stage 1, and what is left to do for stage 2.
    std::vector<Term> filter(const Images& images, const float* rows, bool transposed);

    const Kernel* kernels_;
    int count_;
    int64_t batch_, pixels_, labels_;
    Team& team_;
    int64_t rows_;       // floats of (BN, L)
    int64_t together_;   // images
    int64_t some_rows_;  // floats of their rows
    Patches patches_;
    std::vector<float> columns_, diagonals_;  // (count, L, L): P', and (count, L)
    std::vector<Penalty> penalties_;
    std::vector<int64_t> sizes_;  // of what each kernel needs: both tables of a lattice, or rows
    std::vector<float*> buffers_;
};

}  // namespace crfrnn
