// A batch of grids cut into patches: as wide as what a convolution down them reads stays in the cache.
#pragma once

#include <algorithm>
#include <cstdint>

#include "filters.h"
#include "kernels.h"
#include "loops.h"
#include "threads.h"

namespace crfrnn {

class Patches {
   public:
    // Of the grid of a spatial kernel; without one, of pixels in any order.
    Patches(const Separable* spatial, int64_t batch, int64_t pixels, int64_t labels)
        : batch_(batch), pixels_(pixels), height_(1), stride_(pixels) {
        if (spatial != nullptr && spatial->axes > 1) {
            height_ = spatial->shape[0];
            stride_ = pixels / height_;
        }
        columns_ = std::min(stride_, std::clamp<int64_t>(FLOATS / labels, 8, 512));
        across_ = (stride_ + columns_ - 1) / columns_;
        grain_ = GRAIN / (height_ * columns_ * labels) + 1;
    }

    int64_t height() const { return height_; }
    int64_t stride() const { return stride_; }
    int64_t count() const { return batch_ * across_; }
    int64_t count_of_image() const { return across_; }

    Patch operator[](int64_t number) const {
        const int64_t column = number % across_ * columns_;
        const int64_t columns = std::min(columns_, stride_ - column);
        return {number / across_ * pixels_ + column, height_, stride_, columns, column,
                stride_ - column - columns};
    }

    // body(number, patch) for those of some images.
    template <class Body>
    void for_each(const Images& images, Team& team, const Body& body) const {
        const int64_t first = images.begin * across_;
        team.for_rows(images.count() * across_, grain_, [&](int64_t begin, int64_t end) {
            for (int64_t k = first + begin; k < first + end; ++k) body(k, (*this)[k]);
        });
    }

   private:
    static constexpr int64_t FLOATS = 2688;  // of a row

    int64_t batch_, pixels_;
    int64_t height_, stride_;  // of the first axis: its length, the pixels from one to the next
    int64_t columns_, across_, grain_;
};

// What is left of a kernel with at most two axes: both of them.
inline void set_axes(const Separable& kernel, Term& term) {
    static constexpr float UNIT[] = {0, 0, 0, 1, 0, 0, 0};  // taps that change nothing
    term.last = taps_of(kernel, kernel.axes - 1);
    term.first = kernel.axes > 1 ? taps_of(kernel, 0) : Taps{UNIT + PADDING, 0};
}

}  // namespace crfrnn
