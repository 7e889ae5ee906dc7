/* Products of a few rows with a matrix, with the sums in registers: the inner loops of the convolutions. */

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
    CHANNELS = 1024 /* most channels of a group */
};

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));
#define INLINE static inline __attribute__((always_inline))
#define UNROLLED(i, count) _Pragma("GCC unroll 16") for (int i = 0; i < (count); i++)

typedef struct {
    int images, in, out, height, width, out_height, out_width, rows, columns, row_stride, column_stride, row_padding, column_padding,
        groups;
} convolution;

static const float zeros[CHANNELS];

/* Transpose a matrix (rows, columns) into `to` (columns, rows). rows is a multiple of 16. */
static inline void turn(const float *from, int rows, int columns, float *to)
{
    for (int row = 0; row < rows; row += 16) /* 16 rows fill a cache line of `to` */
        for (int column = 0; column < columns; column++)
            for (int lane = 0; lane < 16; lane++) to[(size_t)column * rows + row + lane] = from[(size_t)(row + lane) * columns + column];
}

/* out[p] = bias + sum over taps of rows[tap * PIXELS + p] (depth) times weight[taps[tap]] (depth, channels).
   Computes the first `pixels` of them, and wide * LANES channels from `shift` on. */
INLINE void multiply(int pixels, int wide, const float *const *rows, int count, const int *taps, int depth, const float *weight,
                     int channels, const float *bias, float *const *out, int shift)
{
    vec sum[PIXELS][WIDE];
    UNROLLED(p, pixels)
        UNROLLED(v, wide) sum[p][v] = bias ? *(const vec *)(bias + shift + v * LANES) : (vec){0};
    for (int tap = 0; tap < count; tap++) {
        const float *x[PIXELS], *next = weight + (size_t)taps[tap] * depth * channels + shift;
        UNROLLED(p, pixels) x[p] = rows[tap * PIXELS + p];
        for (int k = 0; k < depth; k++, next += channels) {
            vec w[WIDE];
            UNROLLED(v, wide) w[v] = *(const vec *)(next + v * LANES);
            UNROLLED(p, pixels) {
                float a = x[p][k];
                UNROLLED(v, wide) sum[p][v] += a * w[v];
            }
        }
    }
    UNROLLED(p, pixels)
        UNROLLED(v, wide) *(vec *)(out[p] + shift + v * LANES) = sum[p][v];
}

INLINE void multiply_pixels(int pixels, const float *const *rows, int count, const int *taps, int depth, const float *weight, int channels,
                            const float *bias, float *const *out)
{
    int shift = 0;
    for (; shift + WIDE * LANES <= channels; shift += WIDE * LANES)
        multiply(pixels, WIDE, rows, count, taps, depth, weight, channels, bias, out, shift);
    for (; shift + 2 * LANES <= channels; shift += 2 * LANES)
        multiply(pixels, 2, rows, count, taps, depth, weight, channels, bias, out, shift);
    for (; shift < channels; shift += LANES) multiply(pixels, 1, rows, count, taps, depth, weight, channels, bias, out, shift);
}

/* `multiply` for all channels, and for two pixels or for PIXELS. */
static void multiply_all(int pixels, const float *const *rows, int count, const int *taps, int depth, const float *weight, int channels,
                         const float *bias, float *const *out)
{
    if (pixels <= 2)
        multiply_pixels(2, rows, count, taps, depth, weight, channels, bias, out);
    else
        multiply_pixels(PIXELS, rows, count, taps, depth, weight, channels, bias, out);
}

/* to[row] += sum over i of scalars[i][row] * vectors[i]: the outer products of two lists of rows. */
INLINE void add_outer(int rows, int wide, int length, const float *const *scalars, const float *const *vectors, int row, int shift,
                      float *to, size_t step)
{
    vec sum[PIXELS][WIDE];
    UNROLLED(r, rows)
        UNROLLED(v, wide) sum[r][v] = (vec){0}; /* a new sum: small values are lost in a large one */
    for (int i = 0; i < length; i++) {
        const float *a = scalars[i] + row, *b = vectors[i] + shift;
        vec x[WIDE];
        UNROLLED(v, wide) x[v] = *(const vec *)(b + v * LANES);
        UNROLLED(r, rows) {
            float factor = a[r];
            UNROLLED(v, wide) sum[r][v] += factor * x[v];
        }
    }
    UNROLLED(r, rows)
        UNROLLED(v, wide) *(vec *)(to + (row + r) * step + shift + v * LANES) += sum[r][v];
}

INLINE void add_outers(int wide, int length, const float *const *scalars, const float *const *vectors, int rows, int shift, float *to,
                       size_t step)
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
