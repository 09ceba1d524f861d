#include "vertices.h"

#include <algorithm>

namespace crfrnn {

bool KeyLayout::fit(const Extent& extent, int dim, int64_t batch, int margin) {
    // The radix of a digit is its range with a margin: a step never carries into another digit.
    int64_t stride = 1;
    for (int k = dim - 1; k >= 0; --k) {
        low[k] = extent.low[k] - margin - 1;
        const int64_t span = int64_t{extent.high[k]} + margin + 1 - low[k] + 1;
        strides[k] = stride;
        if (span > (int64_t{1} << 62) / stride) return false;
        stride *= span;
    }
    if (batch > (int64_t{1} << 62) / stride) return false;
    strides[dim] = stride;
    steps[dim] = 0;
    for (int k = 0; k < dim; ++k) {
        steps[k] = strides[k];
        steps[dim] -= strides[k];
    }
    return true;
}

VertexTable::VertexTable(int64_t expected) {
    uint64_t size = 1024;
    while (size < 2 * static_cast<uint64_t>(expected)) size *= 2;
    slots_.assign(size, Slot{-1, 0});
    shift_ = 64 - __builtin_ctzll(size);
}

void VertexTable::clear() {
    std::fill(slots_.begin(), slots_.end(), Slot{-1, 0});
    keys_.clear();
}

void VertexTable::grow() {
    slots_.assign(2 * slots_.size(), Slot{-1, 0});
    --shift_;
    for (std::size_t row = 0; row < keys_.size(); ++row)
        slots_[place(keys_[row])] = {keys_[row], static_cast<int32_t>(row)};
}

}  // namespace crfrnn
