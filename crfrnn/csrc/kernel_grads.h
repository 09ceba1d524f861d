// The gradients of one message to what its kernel is made of.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "loops.h"
#include "threads.h"

namespace crfrnn {

// after * K (before * v), and its gradient: rows (BN, L), and factors (BN,) or null for 1.
struct Message {
    const float* v;
    const float* before;
    const float* grad;
    const float* after;
};

// What a kernel that learns receives, all of it added to what is there already. Of a lattice, by the
// Gaussian's own derivative,
//     own_i = sum_j k_ij (f_j - f_i) (received_i . sent_j + sent_i . received_j),
// sent = before * v, received = after * grad; of a spatial Gaussian, what each pixel has of the
// derivative to theta of axis k, own_k,i = received_i . (K_k sent)_i.
struct KernelGrad {
    int32_t dim;               // d of the lattice, or axes of the grid
    const float* features;     // (d, BN), f
    const Separable* changes;  // (axes,), K_k: the taps of axis k are their derivative
    float* own;                // (dim, BN)
    float* factors;            // (2, BN), to after and to before; or null
};

// Floats of scratch that `add_kernel_grad` takes.
int64_t kernel_grad_floats(const Kernel& kernel, const KernelGrad& to, int64_t batch,
                           int64_t pixels, int64_t labels);

// `message` of `kernel`, whose own factors count no more, in some images; K is its transpose if so
// said.
void add_kernel_grad(const Kernel& kernel, const Images& images, int64_t pixels, int64_t batch,
                     int64_t labels, const Message& message, bool transposed, const KernelGrad& to,
                     float* scratch, Team& team);

}  // namespace crfrnn
