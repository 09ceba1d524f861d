// Whole mean-field updates: what the rows of mean_field_rows.h and the filters make together.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "loops.h"
#include "threads.h"

namespace crfrnn {

// unary - sum_m after_m * K_m (before_m * softmax(logits)) P_m', all rows (BN, L), and its gradient.
//
// An update goes through memory three times: (1) line by line along the last axis, softmax and
// the first convolution; (2) splat and blur, on the vertices; (3) patch by patch, the last
// convolution, the slices and the penalties. The penalty of a lattice is applied on its vertices.
class MeanField {
   public:
    enum Task { UPDATE, GRADIENT };

    // For one of the two: an update keeps q as well.
    MeanField(Task task, const Kernel* kernels, int count, int64_t batch, int64_t pixels,
              int64_t labels, Team& team);

    // `updated` may be `logits`.
    void update(int iterations, const float* logits, const float* unary, float* updated);

    // logits_grad is (BN, L) and may be `grad`, penalty_grads (count, L, L) or null; `grad` is
    // added to grad_sum, or begins it, unless that is null.
    void update_grad(const float* logits, const float* grad, float* logits_grad,
                     float* penalty_grads, float* grad_sum, bool begins);

   private:
    // Stage 1 on `rows`, which are first made from the logits unless these are null.
    void filter_lines(const float* logits, float* q, const float* rows, bool transposed);
    // Stage 2, and what is left to do for stage 3.
    std::vector<Term> filter(const float* rows, bool transposed);
    // Stage 3: body(number, patch).
    template <class Body>
    void by_patches(const Body& body) const;
    int64_t num_patches() const;
    Patch patch(int64_t number) const;

    const Kernel* kernels_;
    int count_;
    int64_t batch_, pixels_, labels_;
    Team& team_;
    bool separable_;           // whether any kernel is
    int64_t line_;             // pixels next to each other along the last axis
    int64_t height_, stride_;  // of the first axis: its length, the pixels from one to the next
    std::vector<float> columns_, diagonals_;  // (count, L, L): P', and (count, L)
    std::vector<Penalty> penalties_;
    std::vector<float*> buffers_;  // of each kernel: both tables of a lattice, or rows
    float* q_;                     // (BN, L), of an update
};

}  // namespace crfrnn
