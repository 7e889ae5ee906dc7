/* Products of a few rows with a matrix, held in registers: what the convolutions come to. */

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, WIDE = 4 }; /* PIXELS * WIDE sums in 24 of 32 registers */
#else
enum { LANES = 8, WIDE = 2 }; /* in 12 of 16 */
#endif
enum {
    PIXELS = 6,
    CHANNELS = 1024 /* at most, of a group */
};

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef struct {
    int images, in, out, height, width, out_height, out_width, rows, columns, row_stride, column_stride, row_padding, column_padding, groups;
} convolution;

static const float zeros[CHANNELS];

INLINE void multiply(int wide, const float *const *rows, int taps, int depth, const float *weight, int channels, const float *bias, float *const *out, int shift)
{
    vec sum[PIXELS][WIDE];
    UNROLL for (int p = 0; p < PIXELS; p++)
        UNROLL for (int v = 0; v < wide; v++) sum[p][v] = bias ? *(const vec *)(bias + shift + v * LANES) : (vec){0};
    weight += shift;
    for (int tap = 0; tap < taps; tap++) {
        const float *x[PIXELS];
        UNROLL for (int p = 0; p < PIXELS; p++) x[p] = rows[tap * PIXELS + p];
        for (int k = 0; k < depth; k++, weight += channels) {
            vec w[WIDE];
            UNROLL for (int v = 0; v < wide; v++) w[v] = *(const vec *)(weight + v * LANES);
            UNROLL for (int p = 0; p < PIXELS; p++) {
                float a = x[p][k];
                UNROLL for (int v = 0; v < wide; v++) sum[p][v] += a * w[v];
            }
        }
    }
    UNROLL for (int p = 0; p < PIXELS; p++)
        UNROLL for (int v = 0; v < wide; v++) *(vec *)(out[p] + shift + v * LANES) = sum[p][v];
}

/* The same for all channels. */
static void multiply_all(const float *const *rows, int taps, int depth, const float *weight, int channels, const float *bias, float *const *out)
{
    int shift = 0;
    for (; shift + WIDE * LANES <= channels; shift += WIDE * LANES) multiply(WIDE, rows, taps, depth, weight, channels, bias, out, shift);
    for (; shift + 2 * LANES <= channels; shift += 2 * LANES) multiply(2, rows, taps, depth, weight, channels, bias, out, shift);
    for (; shift < channels; shift += LANES) multiply(1, rows, taps, depth, weight, channels, bias, out, shift);
}

/* to[row][0..count] += sum over i of scalars[i][row] * vectors[i][0..count]: the outer products of two lists of rows. */
INLINE void add_outer(int rows, int wide, int length, const float *const *scalars, const float *const *vectors, int row, int shift, float *to, size_t step)
{
    vec sum[PIXELS][WIDE];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < wide; v++) sum[r][v] = (vec){0}; /* a sum of its own, so that small values are not lost in a large one */
    for (int i = 0; i < length; i++) {
        const float *a = scalars[i] + row, *b = vectors[i] + shift;
        vec x[WIDE];
        UNROLL for (int v = 0; v < wide; v++) x[v] = *(const vec *)(b + v * LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            float factor = a[r];
            UNROLL for (int v = 0; v < wide; v++) sum[r][v] += factor * x[v];
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < wide; v++) *(vec *)(to + (row + r) * step + shift + v * LANES) += sum[r][v];
}

INLINE void add_outers(int wide, int length, const float *const *scalars, const float *const *vectors, int rows, int shift, float *to, size_t step)
{
    int row = 0;
    for (; row + PIXELS <= rows; row += PIXELS) add_outer(PIXELS, wide, length, scalars, vectors, row, shift, to, step);
    for (; row + 4 <= rows; row += 4) add_outer(4, wide, length, scalars, vectors, row, shift, to, step);
    for (; row < rows; row++) add_outer(1, wide, length, scalars, vectors, row, shift, to, step);
}

static void accumulate(int length, const float *const *scalars, const float *const *vectors, int rows, int count, float *to, size_t step)
{
    int shift = 0;
    for (; shift + WIDE * LANES <= count; shift += WIDE * LANES) add_outers(WIDE, length, scalars, vectors, rows, shift, to, step);
    for (; shift + 2 * LANES <= count; shift += 2 * LANES) add_outers(2, length, scalars, vectors, rows, shift, to, step);
    for (; shift < count; shift += LANES) add_outers(1, length, scalars, vectors, rows, shift, to, step);
}
