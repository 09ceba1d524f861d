// The whole filters, and the gradients of one message to what its kernel is made of.
#pragma once

#include <cstdint>

#include "loops.h"
#include "resources.h"

namespace crfrnn {

constexpr int64_t GRAIN = 1 << 14;  // floats of a result below which a thread does not pay
constexpr int64_t PADDING = 3;      // zeros on both sides of the taps of an axis

// Some images of a lattice: their pixels, and vertices that no other image touches. A vertex without
// pixels, where two images meet, may be in both parts.
struct Part {
    int64_t first_pixel, last_pixel, first, last;  // the last ones are not in it
};

Part part_of(const Lattice& lattice, int64_t first_pixel, int64_t last_pixel);

// B_d ... B_0 W' (factor_c v), c < count, in one of the two buffers (M + 1, count, L), which is
// returned; the factors are (BN, count), null for a single 1.
float* splat_and_blur(const Lattice& lattice, const Part& part, int64_t labels, int64_t count,
                      const float* factors, const float* v, bool transposed, float* values,
                      float* blurred, Team& team);

// factor * v of rows of labels.
void scale_rows(const float* factor, int64_t labels, const float* v, float* scaled, int64_t rows,
                Team& team);

// Taps along an axis: the middle one, and how far they reach on both sides of it.
struct Taps {
    const float* middle;
    int64_t radius;
};

// B_d ... B_0, between the two buffers (M + 1, width), of which that with the result is returned.
float* blur_all(const Lattice& lattice, const Part& part, int64_t width, bool transposed,
                float* values, float* blurred, Team& team);

// Taps of one axis of a kernel.
inline Taps taps_of(const Separable& kernel, int axis) {
    const float* taps = kernel.taps;
    for (int k = 0; k < axis; ++k) taps += 2 * (kernel.radii[k] + PADDING) + 1;
    return {taps + kernel.radii[axis] + PADDING, kernel.radii[axis]};
}

// One axis of the grid.
inline Axis axis_of(const Separable& kernel, int axis) {
    const Taps taps = taps_of(kernel, axis);
    return {taps.middle, taps.radius, 1, 1, 0, kernel.shape[axis], kernel.shape[axis]};
}

// One axis of the separable filter: v (before, in_size, length) -> out.
void correlate_axis(const Axis& axis, int64_t before, int64_t length, const float* v, float* out,
                    Team& team);

// All axes, which alternate between the two buffers, beginning with the first; returns the one
// that the last axis ends in.
const float* convolve_axes(const Separable& kernel, int64_t batch, int64_t labels, const float* v,
                           float* const to[2], Team& team);

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
