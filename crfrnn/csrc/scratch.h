// Memory for what one call leaves behind, kept by the calling thread for its next call.
//
// Pages that the system hands out afresh cost several times the arithmetic done on them.
#pragma once

#include <cstdint>

namespace crfrnn {

class Scratch {
   public:
    // `count` floats, not initialised; valid until the calling thread asks for the slot again.
    static float* floats(int64_t count, int slot = 0);

    // Ask for the largest pages in memory that has none yet; a wish, nothing depends on it.
    static void ask_for_large_pages(void* memory, int64_t bytes);

    // Give back what is too large to keep; called when a call is done.
    static void release();
};

}  // namespace crfrnn
