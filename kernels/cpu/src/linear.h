// Matrix products with packed weights, whose results do not depend on how many rows there are.
//
// A matrix [n, k] is cut into panels of PANEL outputs, each stored as k rows of PANEL numbers: a
// thread streams through a panel once for up to ROWS rows of activations, and every output is one
// sum over k in ascending order. Weights may be bf16 or int8; the arithmetic is fp32.
#pragma once

#include "api.h"
#include "vec.h"

namespace MV_ISA {

constexpr int PANEL = 2 * LANES;
constexpr int ROWS = LANES == 16 ? 12 : 6;  // with two sums each they fill the registers
constexpr int BLOCK = 48;                   // rows whose activations stay in the cache of a core
constexpr int AHEAD = 24;                   // rows of a panel to prefetch

template <class W, int M>
inline void micro(const W* w, const float* a, int64_t lda, int k_count, float (*c)[PANEL]) {
    Vec left[M], right[M];
    for (int m = 0; m < M; m++) left[m] = right[m] = Vec{};
    for (int k = 0; k < k_count; k++, w += PANEL) {
        __builtin_prefetch(reinterpret_cast<const char*>(w + AHEAD * PANEL));
        if (sizeof(W) * PANEL > 64)
            __builtin_prefetch(reinterpret_cast<const char*>(w + AHEAD * PANEL) + 64);
        Vec x = load(w), y = load(w + LANES);
        for (int m = 0; m < M; m++) {
            float z = a[m * lda + k];
            left[m] += x * z;
            right[m] += y * z;
        }
    }
    for (int m = 0; m < M; m++) {
        store(c[m], left[m]);
        store(c[m] + LANES, right[m]);
    }
}

template <class W>
inline void dispatch(int rows, const W* w, const float* a, int64_t lda, int k, float (*c)[PANEL]) {
    switch (rows) {
#define MV_CASE(M) \
    case M: return micro<W, M>(w, a, lda, k, c);
        MV_CASE(1) MV_CASE(2) MV_CASE(3) MV_CASE(4) MV_CASE(5) MV_CASE(6)
#if MV_LANES == 16
        MV_CASE(7) MV_CASE(8) MV_CASE(9) MV_CASE(10) MV_CASE(11) MV_CASE(12)
#endif
#undef MV_CASE
    }
}

// `finish(row, panel, values)` gets PANEL outputs of one row, scaled and with their bias.
template <class F>
inline void multiply(mv::Pool& pool, const mv::Linear& linear, const float* a, int rows, F finish) {
    const int panels = (linear.n + PANEL - 1) / PANEL, blocks = (rows + BLOCK - 1) / BLOCK;
    pool.run(panels * blocks, [&](int chunk, int) {
        const int panel = chunk % panels, from = chunk / panels * BLOCK;
        const int to = least(from + BLOCK, rows), k = linear.k;
        const int64_t offset = int64_t(panel) * PANEL * k;
        float c[ROWS][PANEL] __attribute__((aligned(64)));
        for (int row = from; row < to;) {
            // As many passes as needed, of nearly one size.
            int passes = (to - row + ROWS - 1) / ROWS, now = (to - row + passes - 1) / passes;
            const float* at = a + int64_t(row) * k;
            if (linear.kind == mv::FP32)
                dispatch(now, static_cast<const float*>(linear.weight) + offset, at, k, k, c);
            else if (linear.kind == mv::BF16)
                dispatch(now, static_cast<const bf16*>(linear.weight) + offset, at, k, k, c);
            else
                dispatch(now, static_cast<const int8_t*>(linear.weight) + offset, at, k, k, c);
            for (int m = 0; m < now; m++, row++) {
                for (int half = 0; half < PANEL; half += LANES) {
                    Vec x = load(c[m] + half);
                    if (linear.kind == mv::INT8) x *= load(linear.scale + panel * PANEL + half);
                    if (linear.bias) x += load(linear.bias + panel * PANEL + half);
                    store(c[m] + half, x);
                }
                finish(row, panel, c[m]);
            }
        }
    });
}

inline void put(float* to, const float* values, int count, bool add) {
    if (count == PANEL) {
        for (int half = 0; half < PANEL; half += LANES) {
            Vec x = load(values + half);
            store(to + half, add ? load(to + half) + x : x);
        }
        return;
    }
    for (int i = 0; i < count; i++) to[i] = add ? to[i] + values[i] : values[i];
}

// c [rows, n] = a · wᵀ, or is added to.
inline void linear(mv::Pool& pool, const mv::Linear& linear, const float* a, int rows, float* c,
                   bool add) {
    multiply(pool, linear, a, rows, [&](int row, int panel, const float* values) {
        int column = panel * PANEL;
        put(c + int64_t(row) * linear.n + column, values, least(PANEL, linear.n - column), add);
    });
}

// c [rows, n / 2] = silu(gate) · up, of a matrix that was packed in halves.
inline void gated(mv::Pool& pool, const mv::Linear& linear, const float* a, int rows, float* c) {
    const int width = linear.n / 2;
    multiply(pool, linear, a, rows, [&](int row, int panel, const float* values) {
        int column = panel * LANES, count = least(LANES, width - column);
        float result[LANES];
        store(result, silu(load(values)) * load(values + LANES));
        for (int i = 0; i < count; i++) c[int64_t(row) * width + column + i] = result[i];
    });
}

inline int64_t packed_bytes(int32_t n, int32_t k, int32_t kind) {
    // A panel of a matrix in halves has LANES of each; rounding up covers both.
    int64_t panels = (n + PANEL - 1) / PANEL;
    int64_t size = kind == mv::FP32 ? 4 : kind == mv::BF16 ? 2 : 1;
    return (panels * k + AHEAD) * PANEL * size;
}

// Row i of the matrix that output j of a panel comes from; -1 for padding.
inline int source(int n, bool halves, int panel, int j) {
    if (!halves) return panel * PANEL + j < n ? panel * PANEL + j : -1;
    int column = panel * LANES + j % LANES;
    return column < n / 2 ? column + j / LANES * (n / 2) : -1;
}

// `scale` [panels · PANEL] is written for INT8: the largest weight of an output becomes 127.
inline void pack(mv::Pool& pool, const float* weight, int32_t n, int32_t k, int32_t kind, int32_t halves,
                 void* packed, float* scale) {
    pool.run((n + PANEL - 1) / PANEL, [&](int panel, int) {
        for (int j = 0; j < PANEL; j++) {
            int row = source(n, halves, panel, j);
            const float* from = weight + int64_t(row) * k;
            float most = 0, factor = 0;
            if (kind == mv::INT8) {
                for (int i = 0; row >= 0 && i < k; i++) most = std::fabs(from[i]) > most ? std::fabs(from[i]) : most;
                factor = most > 0 ? 127.0f / most : 0.0f;
                scale[panel * PANEL + j] = most / 127.0f;
            }
            for (int i = 0; i < k; i++) {
                float x = row >= 0 ? from[i] : 0.0f;
                int64_t at = (int64_t(panel) * k + i) * PANEL + j;
                if (kind == mv::FP32)
                    static_cast<float*>(packed)[at] = x;
                else if (kind == mv::BF16)
                    narrow(x, static_cast<bf16*>(packed) + at);
                else
                    static_cast<int8_t*>(packed)[at] = int8_t(std::lrintf(x * factor));
            }
        }
    });
}

}  // namespace MV_ISA
