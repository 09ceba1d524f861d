// The vertex table of a permutohedral lattice: the twin of filtering/vertices.py.
#pragma once

#include <cstdint>
#include <vector>

#include "simplex.h"

namespace crfrnn {

// The strides of the digits in a key, or none where they do not fit into 62 bits.
struct KeyLayout {
    int32_t low[MAX_DIM];
    int64_t strides[MAX_DIM + 1];  // of the d digits, then of the image
    int64_t steps[MAX_DIM + 1];    // what a step along each of the d + 1 directions adds

    // False where theta is too small.
    bool fit(const Extent& extent, int dim, int64_t batch, int margin);
};

// Packed keys to row numbers, in the order in which they were first seen.
class VertexTable {
   public:
    explicit VertexTable(int64_t expected = 512);

    // The row of a key, a new one if need be.
    int32_t insert(int64_t key) {
        Slot& slot = slots_[place(key)];
        if (slot.key == key) return slot.row;
        slot = {key, static_cast<int32_t>(keys_.size())};
        keys_.push_back(key);
        const int32_t row = slot.row;
        if (2 * keys_.size() > slots_.size()) grow();
        return row;
    }

    // The row of a key, or -1.
    int32_t find(int64_t key) const {
        const Slot& slot = slots_[place(key)];
        return slot.key == key ? slot.row : -1;
    }

    const std::vector<int64_t>& keys() const { return keys_; }
    void clear();

   private:
    struct Slot {
        int64_t key;  // -1: empty
        int32_t row;
    };

    // Where the key is, or the empty slot where it belongs.
    uint64_t place(int64_t key) const {
        uint64_t at = (static_cast<uint64_t>(key) * 0x9E3779B97F4A7C15u) >> shift_;
        while (slots_[at].key != key && slots_[at].key != -1) at = (at + 1) & (slots_.size() - 1);
        return at;
    }
    void grow();

    std::vector<Slot> slots_;
    std::vector<int64_t> keys_;
    int shift_;
};

}  // namespace crfrnn
