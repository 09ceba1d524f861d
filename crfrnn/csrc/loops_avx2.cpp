// The inner loops for x86-64 with AVX2 and FMA.
#if defined(__x86_64__)

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "loops.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#include "rows.h"
#include "filter_rows.h"
#include "mean_field_rows.h"

namespace crfrnn {
const Loops loops_avx2 = {"AVX2", splat, blur, slice_, slice_dots,
    correlate, softmax, row_dots, scale, multiply, penalise, merge, update, update_grad, send};
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
