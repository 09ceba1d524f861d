// The inner loops for the instruction set that every machine of the platform has.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "loops.h"

#include "rows.h"
#include "filter_rows.h"
#include "mean_field_rows.h"

namespace crfrnn {
const Loops loops_baseline = {"baseline", splat, blur, slice_, slice_dots,
    correlate, softmax, row_dots, scale, multiply, penalise, merge, update, update_grad, send};
}
