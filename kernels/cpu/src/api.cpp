// The C interface: which kernels run on this processor, and the threads that they run on.
#include "api.h"

#include <cstring>

#define MV_DECLARE(isa) \
    namespace isa { \
    extern const mv::Kernels kernels; \
    }
MV_DECLARE(baseline)
#if defined(__x86_64__)
MV_DECLARE(avx2)
MV_DECLARE(avx512)
#endif

namespace {

using mv::Kernels;

const Kernels* best() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &avx512::kernels;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &avx2::kernels;
#endif
    return &baseline::kernels;
}

const Kernels* named(const char* name) {
    const Kernels* all[] = {
        &baseline::kernels,
#if defined(__x86_64__)
        &avx2::kernels,
        &avx512::kernels,
#endif
    };
    // `best` is the last one that this processor has.
    for (const Kernels* kernels : all) {
        if (std::strcmp(kernels->name, name) == 0) return kernels;
        if (kernels == best()) break;
    }
    return nullptr;
}

// One call at a time: the kernels keep their working memory between calls.
std::mutex mutex;
mv::Pool* pool = nullptr;  // lives as long as the process, whose end must not wait for threads
const Kernels* kernels = best();

mv::Pool& threads() {
    if (pool == nullptr) pool = new mv::Pool(1);
    return *pool;
}

}  // namespace

#define MV_EXPORT extern "C" __attribute__((visibility("default")))

MV_EXPORT int32_t mv_abi() { return mv::ABI; }

MV_EXPORT const char* mv_isa() { return kernels->name; }

// 0 if the processor lacks it, or there is none of this name.
MV_EXPORT int32_t mv_use_isa(const char* name) {
    std::lock_guard<std::mutex> lock(mutex);
    const Kernels* found = named(name);
    if (found != nullptr) kernels = found;
    return found != nullptr;
}

MV_EXPORT void mv_set_threads(int32_t count) {
    std::lock_guard<std::mutex> lock(mutex);
    if (pool != nullptr && pool->threads() == count) return;
    delete pool;
    pool = new mv::Pool(count);
}

MV_EXPORT void mv_attend(const mv::Attention* call) {
    std::lock_guard<std::mutex> lock(mutex);
    kernels->attend(threads(), *call);
}

MV_EXPORT int64_t mv_packed_bytes(int32_t n, int32_t k, int32_t kind) {
    return kernels->packed_bytes(n, k, kind);
}

MV_EXPORT void mv_pack(const float* weight, int32_t n, int32_t k, int32_t kind, int32_t halves,
                       void* packed, float* scale) {
    std::lock_guard<std::mutex> lock(mutex);
    kernels->pack(threads(), weight, n, k, kind, halves, packed, scale);
}

MV_EXPORT void mv_linear(const mv::Linear* linear, const float* a, int32_t rows, float* c) {
    std::lock_guard<std::mutex> lock(mutex);
    kernels->linear(threads(), *linear, a, rows, c);
}

MV_EXPORT int32_t mv_forward(const mv::Model* model, const mv::Step* step) {
    std::lock_guard<std::mutex> lock(mutex);
    return kernels->forward(threads(), *model, *step);
}
