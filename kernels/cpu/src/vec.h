// One vector register of floats, as wide as the instruction set this file is compiled for.
// Plain vector extensions of GCC and Clang: SSE, AVX2, AVX-512 and NEON from the same source.
//
// What includes this file is compiled once for each instruction set, each in a namespace of its
// own, and must not instantiate templates of the standard library: the linker keeps one of several
// equal functions, and that one may be made of instructions that the processor does not have.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define MV_LANES 16
#elif defined(__AVX2__)
#define MV_LANES 8
#else
#define MV_LANES 4
#endif

namespace MV_ISA {

constexpr int LANES = MV_LANES;

typedef float Vec __attribute__((vector_size(4 * MV_LANES)));
typedef int32_t VecI __attribute__((vector_size(4 * MV_LANES)));
typedef uint32_t VecU __attribute__((vector_size(4 * MV_LANES)));
typedef float VecMem __attribute__((vector_size(4 * MV_LANES), aligned(4), may_alias));
typedef uint16_t HalfMem __attribute__((vector_size(2 * MV_LANES), aligned(2), may_alias));
typedef int8_t ByteMem __attribute__((vector_size(MV_LANES), aligned(1), may_alias));

using bf16 = uint16_t;  // the upper half of a float

inline Vec load(const float* p) { return *reinterpret_cast<const VecMem*>(p); }
// GCC takes `__builtin_convertvector` apart into single numbers, so x86 has its own instructions.
inline Vec load(const bf16* p) {
#if defined(__AVX512F__)
    return (Vec)((VecU)_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))) << 16);
#elif defined(__AVX2__)
    return (Vec)((VecU)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))) << 16);
#else
    return (Vec)(__builtin_convertvector(*reinterpret_cast<const HalfMem*>(p), VecU) << 16);
#endif
}
inline Vec load(const int8_t* p) {
#if defined(__AVX512F__)
    __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
#elif defined(__AVX2__)
    __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
#else
    return __builtin_convertvector(
        __builtin_convertvector(*reinterpret_cast<const ByteMem*>(p), VecI), Vec);
#endif
}
inline void store(float* p, Vec x) { *reinterpret_cast<VecMem*>(p) = x; }
inline Vec splat(float x) { return Vec{} + x; }
inline Vec max(Vec a, Vec b) { return a > b ? a : b; }

inline float widen(float x) { return x; }
inline float widen(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline void narrow(float x, float* to) { *to = x; }
inline void narrow(float x, bf16* to) {  // to the nearest, ties to even; NaN stays NaN
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    *to = x != x ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

// Halves are added to each other, so the order does not depend on the caller.
inline float sum(Vec x) {
    float lane[LANES];
    store(lane, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lane[i] += lane[i + width];
    return lane[0];
}
inline float peak(Vec x) {
    float lane[LANES];
    store(lane, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
    return lane[0];
}

// e^x to 2e-7 of its value, for x from -87 to 88 and clamped there.
inline Vec exp(Vec x) {
    x = max(x, splat(-87.0f));
    x = x > 88.0f ? splat(88.0f) : x;
    const float magic = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer
    Vec n = (x * 1.44269504f + magic) - magic;
    Vec f = x - n * 0.693145752f - n * 1.42860677e-6f;  // ln 2 in two parts
    Vec p = 1.0f +
            f * (1.0f + f * (0.5f + f * (0.16666667f +
                                         f * (0.041666667f + f * (0.008333333f + f * 0.0013888889f)))));
    VecI exponent = (__builtin_convertvector(n, VecI) + 127) << 23;
    return p * (Vec)exponent;
}
inline Vec tanh(Vec x) { return 1.0f - 2.0f / (exp(x + x) + 1.0f); }
inline Vec silu(Vec x) { return x / (1.0f + exp(-x)); }

inline int least(int a, int b) { return a < b ? a : b; }
inline int most(int a, int b) { return a > b ? a : b; }
template <int N> struct Size {
    static constexpr int value = N;
};

// Memory that grows and is aligned to a cache line; its contents do not survive growth.
template <class T> class Buffer {
public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(data_); }

    T* fit(size_t count) {
        if (count > capacity_) {
            std::free(data_);
            capacity_ = count + count / 4;
            data_ = static_cast<T*>(std::aligned_alloc(64, (capacity_ * sizeof(T) + 127) / 64 * 64));
            if (data_ == nullptr) std::abort();
        }
        return data_;
    }
    T* data() const { return data_; }

private:
    T* data_ = nullptr;
    size_t capacity_ = 0;
};

// rows[i][j] becomes rows[j][i].
inline void transpose(Vec (&rows)[LANES]) {
#if defined(__GNUC__) && !defined(__clang__)
    for (int step = 1; step < LANES; step *= 2) {
        VecI low, high;
        for (int j = 0; j < LANES; j++) {  // lanes with the bit `step` change places across rows
            low[j] = j & step ? LANES + j - step : j;
            high[j] = j & step ? LANES + j : j + step;
        }
        for (int i = 0; i < LANES; i++) {
            if (i & step) continue;
            Vec a = rows[i], b = rows[i + step];
            rows[i] = __builtin_shuffle(a, b, low);
            rows[i + step] = __builtin_shuffle(a, b, high);
        }
    }
#else
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < i; j++) {
            float x = rows[i][j];
            rows[i][j] = rows[j][i];
            rows[j][i] = x;
        }
#endif
}

}  // namespace MV_ISA
