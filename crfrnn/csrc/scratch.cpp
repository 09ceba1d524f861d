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
        Scratch::ask_for_large_pages(fresh, wanted);
        data = static_cast<float*>(fresh);
        bytes = wanted;
    }
};

thread_local Memory memories[2];

}  // namespace

void Scratch::ask_for_large_pages(void* memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const auto begin = (reinterpret_cast<std::uintptr_t>(memory) + HUGE_PAGE - 1) / HUGE_PAGE;
    const auto end = (reinterpret_cast<std::uintptr_t>(memory) + bytes) / HUGE_PAGE;
    if (begin < end)
        madvise(reinterpret_cast<void*>(begin * HUGE_PAGE), (end - begin) * HUGE_PAGE,
                MADV_HUGEPAGE);
#else
    static_cast<void>(memory), static_cast<void>(bytes);
#endif
}

float* Scratch::floats(int64_t count, int slot) {
    Memory& memory = memories[slot];
    const int64_t bytes =
        (count * static_cast<int64_t>(sizeof(float)) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (bytes > memory.bytes) memory.resize(bytes);
    return memory.data;
}

void Scratch::release() {
    for (Memory& memory : memories)
        if (memory.bytes > KEPT) memory.resize(0);
}

}  // namespace crfrnn
