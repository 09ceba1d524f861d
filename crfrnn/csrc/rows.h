// Rows of labels in registers. A row of L floats is cut into blocks of 8 (of 4, 2 or 1 where L is
// smaller); the last block overlaps the one before it, so no label is left over for a slow loop.
// Up to four blocks make a group, whose sums stay in registers while the rows go by.
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

template <int W>
using Lanes = typename Block<W>::Lanes;

template <int W>
inline Lanes<W> load(const float* from) {
    Lanes<W> lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

template <int W>
inline void store(float* to, Lanes<W> lanes) {
    std::memcpy(to, &lanes, sizeof lanes);
}

// G blocks of W labels: the labels they begin at, and sums of rows over them.
template <int W, int G>
struct Group {
    static constexpr int width = W, blocks = G;

    struct Sum {
        Lanes<W> block[G];
    };

    int64_t at[G];

    Group(int64_t first, int64_t labels) {
        for (int g = 0; g < G; ++g) at[g] = std::min(first + g * W, labels - W);
    }

    Sum zero() const { return Sum{}; }

    Sum load_row(const float* row) const {
        Sum sum;
        for (int g = 0; g < G; ++g) sum.block[g] = load<W>(row + at[g]);
        return sum;
    }

    void add(Sum& sum, float weight, const float* row) const {
        for (int g = 0; g < G; ++g) sum.block[g] += weight * load<W>(row + at[g]);
    }

    void store_row(float* row, const Sum& sum) const {
        for (int g = 0; g < G; ++g) store<W>(row + at[g], sum.block[g]);
    }
};

template <int W, class Body>
inline void groups_of(int64_t labels, const Body& body) {
    const int64_t blocks = (labels + W - 1) / W;
    for (int64_t first = 0; first < blocks; first += 4) {
        const int64_t left = blocks - first;
        // Fewer than 8 labels make one or two blocks of 4 or 2, and a single one is its own.
        if constexpr (W == 8) {
            if (left == 3) body(Group<W, 3>(first * W, labels));
            if (left >= 4) body(Group<W, 4>(first * W, labels));
        }
        if constexpr (W > 1)
            if (left == 2) body(Group<W, 2>(first * W, labels));
        if (left == 1) body(Group<W, 1>(first * W, labels));
    }
}

// body(group) for the groups that cover `labels` labels.
template <class Body>
inline void by_groups(int64_t labels, const Body& body) {
    if (labels >= 8)
        groups_of<8>(labels, body);
    else if (labels >= 4)
        groups_of<4>(labels, body);
    else if (labels >= 2)
        groups_of<2>(labels, body);
    else
        groups_of<1>(labels, body);
}

// body(group, begin, end) likewise, over few enough rows at a time that they stay in the cache
// from group to group.
template <class Body>
inline void by_groups_and_rows(int64_t labels, int64_t begin, int64_t end, const Body& body) {
    const int64_t step = labels > 32 ? 64 : end - begin;
    for (int64_t first = begin; first < end; first += step)
        by_groups(labels, [&](auto group) { body(group, first, std::min(first + step, end)); });
}

}  // namespace
