#include "scratch.h"

#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace crfrnn {

namespace {

constexpr int64_t KEPT = int64_t{128} << 20;     // bytes that a thread keeps at most
constexpr int64_t HUGE_PAGE = int64_t{2} << 20;  // bytes

struct Memory {
    float* data = nullptr;
    int64_t bytes = 0;

    ~Memory() { std::free(data); }
    void resize(int64_t wanted) {
        std::free(data);
        data = nullptr;
        bytes = 0;
        if (wanted == 0) return;
        void* fresh = nullptr;
        if (posix_memalign(&fresh, HUGE_PAGE, wanted) != 0) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        madvise(fresh, wanted, MADV_HUGEPAGE);  // a wish: nothing depends on it
#endif
        data = static_cast<float*>(fresh);
        bytes = wanted;
    }
};

thread_local Memory memory;

}  // namespace

float* Scratch::floats(int64_t count) {
    const int64_t bytes =
        (count * static_cast<int64_t>(sizeof(float)) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (bytes > memory.bytes) memory.resize(bytes);
    return memory.data;
}

void Scratch::release() {
    if (memory.bytes > KEPT) memory.resize(0);
}

}  // namespace crfrnn
