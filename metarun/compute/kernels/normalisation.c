/* Statistics of columns, and normalisation together with the ReLU or the max-pooling behind it, on one core.
 * The windows of the pooling are 2 x 2 and do not overlap.
 *
 * The image between the two operations is never written. The forward pass reads x once, the backward pass twice.
 *
 * Memory: x (images, height, width, channels). y and g have the shape of x, or (images, height / 2, width / 2, channels) where pooled.
 * places have the shape of y: row * width + column of each maximum. The normalised image is n = x * scale + shift per channel. Where scale
 * and shift belong to the gradient, n = x * by + plus.
 */

#include <stdint.h>
#include <string.h>

enum {
    CHANNELS = 1024, /* channels at once, so that their sums stay in the cache */
    PIXELS = 64      /* pixels of a partial sum: small values are lost in a large sum */
};

typedef struct {
    long images, height, width, channels;
} images;

static long fewer(long a, long b) { return a < b ? a : b; }

/* Mean and biased variance of each channel, for images of one pixel. torch reads column by column,
   each value from another page of memory. */
void column_statistics(const images *shape, const float *x, float *mean, float *variance)
{
    long rows = shape->images, columns = shape->channels;
    for (long left = 0; left < columns; left += CHANNELS) {
        long width = fewer(columns - left, CHANNELS);
        float centre[CHANNELS] = {0}, spread[CHANNELS] = {0};
        for (long row = 0; row < rows; row++)
            for (long column = 0; column < width; column++) centre[column] += x[row * columns + left + column];
        for (long column = 0; column < width; column++) centre[column] /= rows;
        for (long row = 0; row < rows; row++)
            for (long column = 0; column < width; column++) {
                float apart = x[row * columns + left + column] - centre[column];
                spread[column] += apart * apart;
            }
        for (long column = 0; column < width; column++)
            mean[left + column] = centre[column], variance[left + column] = spread[column] / rows;
    }
}

/* y = max(n, 0). */
void normalise_and_rectify(const images *shape, const float *x, const float *scale, const float *shift, float *y)
{
    long pixels = shape->images * shape->height * shape->width, channels = shape->channels;
    for (long pixel = 0; pixel < pixels; pixel++, x += channels, y += channels)
        for (long k = 0; k < channels; k++) {
            float value = x[k] * scale[k] + shift[k];
            y[k] = value < 0 ? 0 : value;
        }
}

/* Over the values with n > 0, per channel: sums[0] = sum of g, sums[1] = sum of g * (x - mean).
   Computing n again is faster than reading it. */
void sums_where_positive(const images *shape, const float *g, const float *x, const float *by, const float *plus, const float *mean,
                         float *sums)
{
    long pixels = shape->images * shape->height * shape->width, channels = shape->channels;
    float part[2][CHANNELS];
    memset(sums, 0, sizeof(float) * 2 * channels);
    for (long first = 0; first < pixels; first += PIXELS)
        for (long left = 0; left < channels; left += CHANNELS) {
            long width = fewer(channels - left, CHANNELS);
            memset(part[0], 0, sizeof(float) * width), memset(part[1], 0, sizeof(float) * width);
            for (long pixel = first; pixel < fewer(first + PIXELS, pixels); pixel++) {
                const float *of_g = g + pixel * channels + left, *of_x = x + pixel * channels + left;
                for (long k = 0; k < width; k++) {
                    float passed = of_x[k] * by[left + k] + plus[left + k] <= 0 ? 0 : of_g[k];
                    part[0][k] += passed;
                    part[1][k] += passed * (of_x[k] - mean[left + k]);
                }
            }
            for (long k = 0; k < width; k++) sums[left + k] += part[0][k], sums[channels + left + k] += part[1][k];
        }
}

/* dx = x * scale + shift, plus gain * g where n > 0. */
void spread_where_positive(const images *shape, const float *g, const float *x, const float *by, const float *plus, const float *scale,
                           const float *shift, const float *gain, float *dx)
{
    long pixels = shape->images * shape->height * shape->width, channels = shape->channels;
    for (long pixel = 0; pixel < pixels; pixel++, g += channels, x += channels, dx += channels)
        for (long k = 0; k < channels; k++) dx[k] = x[k] * scale[k] + shift[k] + (x[k] * by[k] + plus[k] <= 0 ? 0 : gain[k] * g[k]);
}

/* y = the maxima of n, and their places. As in torch, NaN is a maximum, and the first of equal values is chosen. */
void normalise_and_pool(const images *shape, const float *x, const float *scale, const float *shift, float *y, int64_t *places)
{
    long out_height = shape->height / 2, out_width = shape->width / 2, channels = shape->channels;
    float best[CHANNELS];
    int32_t which[CHANNELS];
    for (long image = 0; image < shape->images; image++, x += shape->height * shape->width * channels)
        for (long i = 0; i < out_height; i++)
            for (long j = 0; j < out_width; j++)
                for (long left = 0; left < channels; left += CHANNELS) {
                    long corner = 2 * i * shape->width + 2 * j, width = fewer(channels - left, CHANNELS);
                    const float *by = scale + left, *plus = shift + left;
                    for (int32_t place = 0; place < 4; place++) {
                        const float *from = x + (corner + place % 2 + place / 2 * shape->width) * channels + left;
                        if (place == 0)
                            for (long k = 0; k < width; k++) best[k] = from[k] * by[k] + plus[k], which[k] = 0;
                        else
                            for (long k = 0; k < width; k++) {
                                float next = from[k] * by[k] + plus[k];
                                int32_t more = (next > best[k]) | (next != next);
                                best[k] = more ? next : best[k];
                                which[k] = more ? place : which[k];
                            }
                    }
                    for (long k = 0; k < width; k++) *y++ = best[k];
                    for (long k = 0; k < width; k++) *places++ = corner + which[k] % 2 + which[k] / 2 * shape->width;
                }
}

static inline float larger(float a, float b) { return (b > a) | (b != b) ? b : a; }

/* y = the maxima of n, without their places. */
void normalise_and_take_maxima(const images *shape, const float *x, const float *scale, const float *shift, float *y)
{
    long out_height = shape->height / 2, out_width = shape->width / 2, channels = shape->channels;
    for (long image = 0; image < shape->images; image++, x += shape->height * shape->width * channels)
        for (long i = 0; i < out_height; i++)
            for (long j = 0; j < out_width; j++, y += channels) {
                const float *a = x + (2 * i * shape->width + 2 * j) * channels, *b = a + channels, *c = a + shape->width * channels,
                            *d = c + channels;
                for (long k = 0; k < channels; k++) {
                    float above = larger(a[k] * scale[k] + shift[k], b[k] * scale[k] + shift[k]);
                    y[k] = larger(larger(above, c[k] * scale[k] + shift[k]), d[k] * scale[k] + shift[k]);
                }
            }
}

/* Per channel: sums[0] = sum of g, sums[1] = sum of g * (x - mean) at the maxima. */
void sums_at_maxima(const images *shape, const float *g, const int64_t *places, const float *x, const float *mean, float *sums)
{
    long out_height = shape->height / 2, out_width = shape->width / 2, channels = shape->channels;
    float part[2][CHANNELS];
    memset(sums, 0, sizeof(float) * 2 * channels);
    for (long image = 0; image < shape->images; image++, x += shape->height * shape->width * channels)
        for (long i = 0; i < out_height; i++)
            for (long left = 0; left < channels; left += CHANNELS) {
                long width = fewer(channels - left, CHANNELS);
                memset(part[0], 0, sizeof(float) * width), memset(part[1], 0, sizeof(float) * width);
                for (long j = 0; j < out_width; j++) {
                    long corner = 2 * i * shape->width + 2 * j, pixel = ((image * out_height + i) * out_width + j) * channels + left;
                    const float *a = x + corner * channels + left, *b = a + channels, *c = a + shape->width * channels, *d = c + channels,
                                *of_g = g + pixel;
                    const int64_t *at = places + pixel;
                    int32_t two = shape->width;
                    for (long k = 0; k < width; k++) {
                        int32_t place = (int32_t)(at[k] - corner);
                        float value = place == 0 ? a[k] : place == 1 ? b[k] : place == two ? c[k] : d[k];
                        part[0][k] += of_g[k];
                        part[1][k] += of_g[k] * (value - mean[left + k]);
                    }
                }
                for (long k = 0; k < width; k++) sums[left + k] += part[0][k], sums[channels + left + k] += part[1][k];
            }
}

/* dx = x * scale + shift, plus gain * g at the maxima. */
void spread_at_maxima(const images *shape, const float *g, const int64_t *places, const float *x, const float *scale, const float *shift,
                      const float *gain, float *dx)
{
    long out_height = shape->height / 2, out_width = shape->width / 2, channels = shape->channels;
    for (long image = 0; image < shape->images;
         image++, x += shape->height * shape->width * channels, dx += shape->height * shape->width * channels)
        for (long row = 0; row < shape->height; row++)
            for (long column = 0; column < shape->width; column++) {
                long place = row * shape->width + column, pixel = ((image * out_height + row / 2) * out_width + column / 2) * channels;
                const float *from = x + place * channels;
                float *to = dx + place * channels;
                if (row / 2 < out_height && column / 2 < out_width)
                    for (long k = 0; k < channels; k++)
                        to[k] = from[k] * scale[k] + shift[k] + (places[pixel + k] == place ? gain[k] * g[pixel + k] : 0.0f);
                else
                    for (long k = 0; k < channels; k++) to[k] = from[k] * scale[k] + shift[k];
            }
}
