// Whole mean-field updates: what the rows of mean_field_rows.h and the filters make together.
#pragma once

#include <cstdint>
#include <vector>

#include "filters.h"
#include "loops.h"
#include "resources.h"

namespace crfrnn {

// The penalty of a kernel, on padded rows of labels.
struct PaddedPenalty {
    std::vector<float> rows, diagonal;
    Penalty penalty;

    // P' of a matrix P (L, L), or P itself, with zeros in the padding.
    PaddedPenalty(const float* matrix, int64_t labels, int64_t stride, bool transposed);
};

// How a spatial Gaussian goes through its grid, on whose coarser ones it is the product of two
// narrower Gaussians: down to the coarse grid and up again. `columns` are along the rows of pixels.
struct SpatialAxes {
    Axis columns_down{}, columns_up{}, rows_down{}, rows_up{};
    int64_t width, height;  // sites of the lines, and rows of them on the coarse grid, 0 without it
    std::vector<std::vector<float>> taps;

    SpatialAxes(const Separable& kernel, int64_t columns);
};

// Where the pixels of each band add up what they send to a lattice: in the vertex's own row, if the
// band is the first to touch it, or in a row of the band's own behind those of all vertices.
struct Accumulators {
    std::vector<int32_t> touched;            // rows, band after band
    std::vector<int64_t> bands;              // where those of each band begin
    std::vector<int32_t> more, offsets;      // the other rows of each vertex
    int64_t rows;

    // `places` (BN, d + 1) are filled.
    Accumulators(const Lattice& lattice, const std::vector<Band>& bands, int64_t width,
                 int32_t* places);
};

// unary - sum_m after_m * K_m (before_m * softmax(logits)) P_m', all rows (BN, L), and its gradient.
//
// Between two updates nothing is stored but what is on the vertices and on the coarse grids: a band
// of pixels takes its messages from there, makes its q, and adds it to the next ones, all while it
// is in the cache. The bands, and so the bits, do not depend on the number of threads.
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
    struct Group;  // of images that are done together

    // body(group) for a few images at a time: what they are between two updates is in memory that
    // the next ones take again. `extra` floats more are the group's own.
    template <class Body>
    void by_groups_of_images(int64_t extra, const Body& body) const;

    const Kernel* kernels_;
    int count_;
    int64_t batch_, pixels_, labels_, stride_;
    Team& team_;
    int64_t width_, height_;  // of the grid
    int64_t rows_of_band_, bands_of_image_, together_;
    std::vector<SpatialAxes> spatial_;  // of the kernels that are
    std::vector<int> spatial_of_;       // which of them, or -1
    std::vector<PaddedPenalty> columns_, matrices_;  // P_m' and P_m
};

}  // namespace crfrnn
