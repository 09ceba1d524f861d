// Rows of labels in registers. A row of L floats is cut into groups of up to four blocks of 8 (of 4,
// 3, 2 or 1 for a remainder below 8); the last block overlaps the one before it, so no label is left
// over for a slow loop. The sums of a group stay in registers while the rows go by.
//
// Included once for each instruction set: everything here is in an unnamed namespace.

namespace {

template <int W>
struct Block {
    typedef float Lanes __attribute__((vector_size(4 * W)));
    typedef int32_t Integers __attribute__((vector_size(4 * W)));
};
template <>
struct Block<1> {
    typedef float Lanes;
    typedef int32_t Integers;
};
// Vectors of two or three floats are taken apart by compilers; of four, some lanes may be idle.
template <>
struct Block<2> : Block<4> {};
template <>
struct Block<3> : Block<4> {};

template <int W>
using Lanes = typename Block<W>::Lanes;

template <int W>
inline Lanes<W> load(const float* from) {
    Lanes<W> lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}
template <>
inline Lanes<2> load<2>(const float* from) {
    return Lanes<2>{from[0], from[1]};
}
template <>
inline Lanes<3> load<3>(const float* from) {
    return Lanes<3>{from[0], from[1], from[2]};
}

template <int W>
inline void store(float* to, Lanes<W> lanes) {
    std::memcpy(to, &lanes, sizeof lanes);
}
template <>
inline void store<2>(float* to, Lanes<2> lanes) {
    for (int k = 0; k < 2; ++k) to[k] = lanes[k];
}
template <>
inline void store<3>(float* to, Lanes<3> lanes) {
    for (int k = 0; k < 3; ++k) to[k] = lanes[k];
}

typedef float Pair __attribute__((vector_size(8)));

inline Lanes<8> larger(Lanes<8> a, Lanes<8> b) { return a > b ? a : b; }

// The sum of eight lanes, in halves.
inline float sum_of(Lanes<8> lanes) {
    Lanes<4> half[2];
    std::memcpy(half, &lanes, sizeof lanes);
    const Lanes<4> four = half[0] + half[1];
    Pair quarter[2];
    std::memcpy(quarter, &four, sizeof four);
    const Pair two = quarter[0] + quarter[1];
    return two[0] + two[1];
}

// The largest of eight lanes.
inline float largest_of(Lanes<8> lanes) {
    Lanes<4> half[2];
    std::memcpy(half, &lanes, sizeof lanes);
    const Lanes<4> four = half[0] > half[1] ? half[0] : half[1];
    Pair quarter[2];
    std::memcpy(quarter, &four, sizeof four);
    const Pair two = quarter[0] > quarter[1] ? quarter[0] : quarter[1];
    return two[0] > two[1] ? two[0] : two[1];
}

// G blocks of W labels: the labels they begin at, and sums of rows over them.
template <int W, int G>
struct Group {
    static constexpr int width = W, blocks = G;

    struct Sum {
        Lanes<W> block[G];
    };

    Group(int64_t first, int64_t labels)
        : first_(first), last_(std::min(first + (G - 1) * W, labels - W)) {}

    // The label that a block begins at.
    int64_t at(int g) const { return g < G - 1 ? first_ + g * W : last_; }

    Sum zero() const { return Sum{}; }

    Sum load_row(const float* row) const {
        Sum sum;
        for (int g = 0; g < G; ++g) sum.block[g] = load<W>(row + at(g));
        return sum;
    }

    void add(Sum& sum, float weight, const float* row) const {
        for (int g = 0; g < G; ++g) sum.block[g] += weight * load<W>(row + at(g));
    }

    void store_row(float* row, const Sum& sum) const {
        for (int g = 0; g < G; ++g) store<W>(row + at(g), sum.block[g]);
    }

   private:
    const int64_t first_, last_;
};

// body(group) for the groups that cover `labels` labels. Blocks overlap inside a group alone, so
// a body may change rows in place: a group reads all of its labels before it writes any.
template <class Body>
inline void by_groups(int64_t labels, const Body& body) {
    int64_t first = 0;
    for (; first + 32 <= labels; first += 32) body(Group<8, 4>(first, labels));
    const int64_t left = labels - first;
    if (left > 24) return body(Group<8, 4>(first, labels));
    if (left > 16) return body(Group<8, 3>(first, labels));
    if (left > 8) return body(Group<8, 2>(first, labels));
    if (left == 8) return body(Group<8, 1>(first, labels));
    if (left > 4) return body(Group<4, 2>(first, labels));
    if (left == 4) return body(Group<4, 1>(first, labels));
    if (left == 3) return body(Group<3, 1>(first, labels));
    if (left == 2) return body(Group<2, 1>(first, labels));
    if (left == 1) return body(Group<1, 1>(first, labels));
}

// body(group, begin, end) likewise, over few enough rows at a time that they stay in the cache
// from group to group.
template <class Body>
inline void by_groups_and_rows(int64_t labels, int64_t begin, int64_t end, const Body& body) {
    const int64_t step = labels > 32 ? 64 : end - begin;
    for (int64_t first = begin; first < end; first += step)
        by_groups(labels, [&](auto group) { body(group, first, std::min(first + step, end)); });
}

// Whether a lane is one of the first.
inline Block<8>::Integers first_lanes(int64_t count) {
    Block<8>::Integers lanes;
    for (int k = 0; k < 8; ++k) lanes[k] = k < count ? -1 : 0;
    return lanes;
}

// Floats of the calling thread, not initialised, aligned to cache lines: one memory for each slot,
// kept from call to call, because fresh memory would cost more than what is done in it.
inline float* workspace(std::size_t slot, int64_t count) {
    static thread_local std::vector<std::vector<float>> memory;
    if (memory.size() <= slot) memory.resize(slot + 1);
    std::vector<float>& own = memory[slot];
    if (static_cast<int64_t>(own.size()) < count + 16) own.resize(count + 16);
    const auto address = reinterpret_cast<std::uintptr_t>(own.data());
    return own.data() + (64 - address % 64) % 64 / sizeof(float);
}

// 1 for the labels that are the last of G blocks' own, 0 for those of the block before it.
inline Lanes<8> lanes_of_last_block(int64_t labels, int blocks) {
    Lanes<8> lanes;
    for (int k = 0; k < 8; ++k) lanes[k] = k >= 8 * blocks - labels ? 1.0f : 0.0f;
    return lanes;
}

// <a_i, b_i> of pixels [begin, end).
void row_dots(const float* a, const float* b, int64_t labels, float* dots, int64_t begin,
              int64_t end) {
    const int64_t whole = labels / 8 * 8;
    for (int64_t pixel = begin; pixel < end; ++pixel) {
        const float* const left = a + pixel * labels;
        const float* const right = b + pixel * labels;
        Lanes<8> lanes = {};
        for (int64_t l = 0; l < whole; l += 8) lanes += load<8>(left + l) * load<8>(right + l);
        float dot = whole > 0 ? sum_of(lanes) : 0.0f;
        for (int64_t l = whole; l < labels; ++l) dot += left[l] * right[l];
        dots[pixel] = dot;
    }
}

}  // namespace
