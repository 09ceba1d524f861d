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

// See native.cpp for both.
void lattice_kernel_grad(const Lattice& lattice, int dim, int64_t labels, const Message& message,
                         bool transposed, const float* features, float* features_grad,
                         float* factor_grads, Team& team);

void separable_dots(const Separable* kernels, int count, int64_t batch, int64_t labels,
                    const float* v, const float* factor, const float* w, float* dots, Team& team);

}  // namespace crfrnn
