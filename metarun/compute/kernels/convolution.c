/* Convolution and its two derivatives for images whose channels lie last in memory, on one core.
 *
 * torch's CPU kernels are made for many channels and large images. The convolutions of few-shot learning are small, and each task has its
 * own weights (a group of channels). There these kernels are up to twice as fast. All three functions multiply a few rows by a matrix, with
 * the sums in registers. The rows are pixels. A table says which pixel each tap of the kernel reads, so stride, padding and gradient only
 * change the table.
 *
 * Memory: x (images, height, width, groups * in), y (images, out_height, out_width, groups * out), and for each group the weight
 * (out, taps, in). A tap is a place of the kernel. `in` and `out` are multiples of 16 and at most CHANNELS.
 * Each function returns 0, or 1 where it could not allocate memory.
 */

#include <stdint.h>

#include "products.h"

enum {
    TAPS = 49,         /* most taps of a kernel: each has one bit */
    SLAB = 256 * 1024, /* values of the images that stay in the cache */
    BLOCK = 256        /* pixels whose outer products are added at once */
};

/* One product: the places of a result that read the same taps. Taps outside the image are left out, so nothing is multiplied by zero.
   For 4 x 4 pixels, a kernel of 3 x 3, a stride of 2 and a padding of 1, 44 of 144 multiplications would be by zero. */
typedef struct {
    uint64_t used; /* a bit for each tap */
    int places, count;
    const int *taps; /* (count) */
    const int *from; /* (places, count): floats from the start of an image */
    const int *to;   /* (places): floats from the start of an image of the result */
} product;

static void apply(const product *part, int images, const float *x, size_t x_image, int depth, const float *weight, const float *bias,
                  float *out, size_t out_image, int channels)
{
    const float *rows[TAPS * PIXELS];
    float *to[PIXELS], nowhere[CHANNELS];
    for (int image = 0, place = 0; image < images;) {
        int count = 0;
        for (; count < PIXELS && image < images; count++) {
            const float *from = x + image * x_image;
            for (int tap = 0; tap < part->count; tap++) rows[tap * PIXELS + count] = from + part->from[place * part->count + tap];
            to[count] = out + image * out_image + part->to[place];
            if (++place == part->places) place = 0, image++;
        }
        for (int p = count; p < PIXELS; p++) { /* registers without a pixel: their results are thrown away */
            for (int tap = 0; tap < part->count; tap++) rows[tap * PIXELS + p] = zeros;
            to[p] = nowhere;
        }
        multiply_all(count, rows, part->count, part->taps, depth, weight, channels, bias, to);
    }
}

/* Find the products of the table `reads` (see `apply_to_all`) and return their number.
   used: (places). numbers: (places * (2 * taps + 1)), the memory that the products point into. */
static int find_products(int places, int taps, const int *reads, int depth, int channels, product *found, uint64_t *used, int *numbers)
{
    int count = 0;
    for (int place = 0; place < places; place++) {
        int same = 0;
        used[place] = 0;
        for (int tap = 0; tap < taps; tap++) used[place] |= (uint64_t)(reads[place * taps + tap] >= 0) << tap;
        while (same < count && found[same].used != used[place]) same++;
        if (same == count) found[count++].used = used[place];
    }
    for (product *part = found; part < found + count; part++) {
        part->places = part->count = 0;
        part->taps = numbers;
        for (int tap = 0; tap < taps; tap++)
            if (part->used >> tap & 1) *numbers++ = tap, part->count++;
        part->to = numbers;
        for (int place = 0; place < places; place++)
            if (used[place] == part->used) *numbers++ = place * channels, part->places++;
        part->from = numbers;
        for (int place = 0; place < places; place++)
            for (int tap = 0; used[place] == part->used && tap < part->count; tap++)
                *numbers++ = reads[place * taps + part->taps[tap]] * depth;
    }
    return count;
}

/* Copy (pixels, groups, channels) to (groups, pixels, channels), so that the channels of a group lie side by side. The loops follow the
   source: its pixels can be as far apart as pages of memory. */
static void take(int pixels, int groups, int channels, const float *from, float *to)
{
    for (int pixel = 0; pixel < pixels; pixel++)
        for (int group = 0; group < groups; group++, from += channels)
            memcpy(to + ((size_t)group * pixels + pixel) * channels, from, sizeof(float) * channels);
}

/* Copy (groups, pixels, channels) to (pixels, groups, channels). */
static void put(int pixels, int groups, int channels, const float *from, float *to)
{
    for (int pixel = 0; pixel < pixels; pixel++)
        for (int group = 0; group < groups; group++, to += channels)
            memcpy(to, from + ((size_t)group * pixels + pixel) * channels, sizeof(float) * channels);
}

/* Return the number of images whose x and y stay in the cache together. */
static int images_at_once(const convolution *conv)
{
    size_t image = (size_t)conv->groups * (conv->height * conv->width * conv->in + conv->out_height * conv->out_width * conv->out);
    size_t most = SLAB / image;
    if (most > PIXELS) most -= most % PIXELS; /* each place then fills the registers */
    if (most > (size_t)conv->images) most = conv->images;
    return most < 1 ? 1 : (int)most;
}

/* Convolve `from` (images, from_pixels, groups, depth) into `to` (images, to_pixels, groups, channels).
   weight: (groups, taps, depth, channels).
   reads: (to_pixels, taps), the pixel that a place reads through a tap, or -1 outside the image. */
static int apply_to_all(const convolution *conv, const int *reads, const float *from, int from_pixels, int depth, float *to, int to_pixels,
                        int channels, const float *weight, const float *bias)
{
    int most = images_at_once(conv), groups = conv->groups, taps = conv->rows * conv->columns, count = 0, failed = 1;
    product *products = malloc(sizeof(product) * to_pixels);
    uint64_t *used = malloc(sizeof(uint64_t) * to_pixels);
    int *numbers = malloc(sizeof(int) * to_pixels * (2 * taps + 1));
    float *in = malloc(sizeof(float) * (groups > 1 ? (size_t)most * from_pixels * groups * depth : 1));
    float *out = malloc(sizeof(float) * (groups > 1 ? (size_t)most * to_pixels * groups * channels : 1));
    if (products && used && numbers && in && out)
        count = find_products(to_pixels, taps, reads, depth, channels, products, used, numbers), failed = 0;
    for (int first = 0; !failed && first < conv->images; first += most) {
        int images = conv->images - first < most ? conv->images - first : most;
        const float *start = from + (size_t)first * from_pixels * groups * depth;
        float *end = to + (size_t)first * to_pixels * groups * channels;
        if (groups > 1) take(images * from_pixels, groups, depth, start, in);
        for (int group = 0; group < groups; group++) {
            const float *x = groups > 1 ? in + (size_t)group * images * from_pixels * depth : start,
                        *w = weight + (size_t)group * taps * depth * channels;
            float *y = groups > 1 ? out + (size_t)group * images * to_pixels * channels : end;
            for (int i = 0; i < count; i++)
                apply(products + i, images, x, from_pixels * depth, depth, w, bias ? bias + group * channels : 0, y, to_pixels * channels,
                      channels);
        }
        if (groups > 1) put(images * to_pixels, groups, channels, out, end);
    }
    free(products), free(used), free(numbers), free(in), free(out);
    return failed;
}

int forward(const convolution *conv, const float *x, const float *weight, const float *bias, float *y)
{
    int taps = conv->rows * conv->columns, places = conv->out_height * conv->out_width, depth = taps * conv->in, failed = 1;
    int *reads = malloc(sizeof(int) * places * taps);
    float *packed = malloc(sizeof(float) * conv->groups * depth * conv->out); /* (groups, taps, in, out) */
    if (reads && packed) {
        for (int place = 0; place < places; place++)
            for (int tap = 0; tap < taps; tap++) {
                int row = place / conv->out_width * conv->row_stride - conv->row_padding + tap / conv->columns;
                int column = place % conv->out_width * conv->column_stride - conv->column_padding + tap % conv->columns;
                int inside = row >= 0 && row < conv->height && column >= 0 && column < conv->width;
                reads[place * taps + tap] = inside ? row * conv->width + column : -1;
            }
        for (int group = 0; group < conv->groups; group++)
            turn(weight + (size_t)group * conv->out * depth, conv->out, depth, packed + (size_t)group * depth * conv->out);
        failed = apply_to_all(conv, reads, x, conv->height * conv->width, conv->in, y, places, conv->out, packed, bias);
    }
    free(reads), free(packed);
    return failed;
}

int input_gradient(const convolution *conv, const float *g, const float *weight, float *x)
{
    int taps = conv->rows * conv->columns, pixels = conv->height * conv->width, failed = 1;
    int *reads = malloc(sizeof(int) * pixels * taps);
    float *packed = malloc(sizeof(float) * conv->groups * taps * conv->out * conv->in); /* (groups, taps, out, in) */
    if (reads && packed) {
        for (int pixel = 0; pixel < pixels; pixel++)
            for (int tap = 0; tap < taps; tap++) {
                int row = pixel / conv->width + conv->row_padding - tap / conv->columns,
                    column = pixel % conv->width + conv->column_padding - tap % conv->columns;
                int i = row / conv->row_stride, j = column / conv->column_stride,
                    between = row % conv->row_stride || column % conv->column_stride;
                int outside = row < 0 || column < 0 || i >= conv->out_height || j >= conv->out_width;
                reads[pixel * taps + tap] = between || outside ? -1 : i * conv->out_width + j;
            }
        float *next = packed;
        for (int group = 0; group < conv->groups; group++)
            for (int tap = 0; tap < taps; tap++)
                for (int o = 0; o < conv->out; o++, next += conv->in)
                    memcpy(next, weight + ((size_t)(group * conv->out + o) * taps + tap) * conv->in, sizeof(float) * conv->in);
        failed = apply_to_all(conv, reads, g, conv->out_height * conv->out_width, conv->out, x, pixels, conv->in, packed, 0);
    }
    free(reads), free(packed);
    return failed;
}

/* Add the weight gradient of some images, for one group. */
static void add_weight_gradient(const convolution *conv, int images, const float *g, const float *x, float *weight)
{
    int taps = conv->rows * conv->columns, places = conv->out_height * conv->out_width;
    const float *of_x[BLOCK], *of_g[BLOCK];
    for (int start = 0; start < images * places; start += BLOCK)
        for (int tap = 0; tap < taps; tap++) {
            int length = 0;
            for (int pixel = start; pixel < start + BLOCK && pixel < images * places; pixel++) {
                int row = pixel % places / conv->out_width * conv->row_stride - conv->row_padding + tap / conv->columns;
                int column = pixel % conv->out_width * conv->column_stride - conv->column_padding + tap % conv->columns;
                if (row < 0 || row >= conv->height || column < 0 || column >= conv->width) continue;
                of_x[length] = x + ((size_t)(pixel / places * conv->height + row) * conv->width + column) * conv->in;
                of_g[length++] = g + (size_t)pixel * conv->out;
            }
            accumulate(length, of_g, of_x, conv->out, conv->in, weight + tap * conv->in, taps * conv->in);
        }
}

int weight_gradient(const convolution *conv, const float *g, const float *x, float *weight)
{
    int most = images_at_once(conv), groups = conv->groups, pixels = conv->height * conv->width,
        places = conv->out_height * conv->out_width;
    size_t of_group = (size_t)conv->out * conv->rows * conv->columns * conv->in;
    float *xs = 0, *gs = 0;
    if (groups > 1) {
        xs = malloc(sizeof(float) * most * pixels * groups * conv->in), gs = malloc(sizeof(float) * most * places * groups * conv->out);
        if (!xs || !gs) return free(xs), free(gs), 1;
    }
    memset(weight, 0, sizeof(float) * groups * of_group);
    for (int first = 0; first < conv->images; first += most) {
        int images = conv->images - first < most ? conv->images - first : most;
        const float *from_x = x + (size_t)first * pixels * groups * conv->in, *from_g = g + (size_t)first * places * groups * conv->out;
        if (groups > 1) take(images * pixels, groups, conv->in, from_x, xs), take(images * places, groups, conv->out, from_g, gs);
        for (int group = 0; group < groups; group++)
            add_weight_gradient(conv, images, groups > 1 ? gs + (size_t)group * images * places * conv->out : from_g,
                                groups > 1 ? xs + (size_t)group * images * pixels * conv->in : from_x, weight + group * of_group);
    }
    free(xs), free(gs);
    return 0;
}
