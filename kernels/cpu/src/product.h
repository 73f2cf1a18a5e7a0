// Products of small matrices, for attention: rows of any number, each summed in one order.
#pragma once

#include "vec.h"

namespace MV_ISA {

constexpr int COLUMNS = LANES == 16 ? 4 : 2;     // vectors that a block of rows is wide

// c[m][0 … COLUMNS · LANES) += Σ_k a[m][k] · b_k; b_k is a row of vectors at b(k).
template <int M, int C, class B>
inline void outer(const float* a, int64_t lda, int count, B b, float* c, int64_t ldc) {
    Vec acc[M][C];
    for (int m = 0; m < M; m++)
        for (int j = 0; j < C; j++) acc[m][j] = load(c + m * ldc + j * LANES);
    for (int k = 0; k < count; k++) {
        auto* row = b(k);
        Vec x[C];
        for (int j = 0; j < C; j++) x[j] = load(row + j * LANES);
        for (int m = 0; m < M; m++) {
            float y = a[m * lda + k];
            for (int j = 0; j < C; j++) acc[m][j] += x[j] * y;
        }
    }
    for (int m = 0; m < M; m++)
        for (int j = 0; j < C; j++) store(c + m * ldc + j * LANES, acc[m][j]);
}

// The same for any number of rows and columns; `b(k, column)` is where row k begins there.
template <class B>
inline void product(int rows, int columns, const float* a, int64_t lda, int count, B b, float* c,
                    int64_t ldc) {
    auto strip = [&](auto width, int column) {
        constexpr int C = decltype(width)::value;
        auto at = [&](int k) { return b(k, column); };
        int m = 0;
        for (; m + 4 <= rows; m += 4) outer<4, C>(a + m * lda, lda, count, at, c + m * ldc + column, ldc);
        const float* rest = a + m * lda;
        float* to = c + m * ldc + column;
        if (rows - m == 3) outer<3, C>(rest, lda, count, at, to, ldc);
        if (rows - m == 2) outer<2, C>(rest, lda, count, at, to, ldc);
        if (rows - m == 1) outer<1, C>(rest, lda, count, at, to, ldc);
    };
    int column = 0;
    for (; column + COLUMNS * LANES <= columns; column += COLUMNS * LANES)
        strip(Size<COLUMNS>{}, column);
    for (; column < columns; column += LANES) strip(Size<1>{}, column);
}

}  // namespace MV_ISA
