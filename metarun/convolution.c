/* Convolution and its two derivatives for images whose channels lie last in memory, on one core.
 *
 * torch's kernels for a processor are made for many channels and large images. The convolutions of few-shot learning are small, and have
 * other weights for each task (a group of channels): there those here are up to twice as fast. All three come to products of a few rows
 * with a matrix, held in registers: the rows are pixels, found by a table of where each tap of the kernel reads, so that stride, padding
 * and derivative only change the table.
 *
 * In memory: x (images, height, width, groups * in), y (images, out_height, out_width, groups * out), and per group the weight
 * (out, taps, in), where a tap is a place of the kernel. `in` and `out` are multiples of 16 and at most CHANNELS. Each function returns 0, or 1 where there was no memory.
 */

#include "products.h"

enum {
    TAPS = 49,         /* at most, of a kernel */
    SLAB = 256 * 1024, /* values of some images that stay in the cache */
    BLOCK = 256        /* pixels whose outer products are added up at once */
};

/* One product: out[place] = sum over taps of x[from[place][tap]] (depth values) times weight[tap] (depth, channels). */
typedef struct {
    int places, taps, depth, channels;
    const int *from; /* (places, taps): floats from the start of an image; -1 where the tap falls outside */
    const int *to;   /* (places): floats from the start of an image of the result */
} product;

static void apply(const product *it, int images, const float *x, size_t x_image, const float *weight, const float *bias, float *out, size_t out_image)
{
    const float *rows[TAPS * PIXELS];
    float *to[PIXELS], nowhere[CHANNELS];
    for (int image = 0, place = 0; it->places && image < images;) {
        for (int p = 0; p < PIXELS; p++) {
            if (image == images) { /* fewer pixels left than registers: the last ones go nowhere */
                for (int tap = 0; tap < it->taps; tap++) rows[tap * PIXELS + p] = zeros;
                to[p] = nowhere;
                continue;
            }
            const float *from = x + image * x_image;
            for (int tap = 0; tap < it->taps; tap++) {
                int start = it->from[place * it->taps + tap];
                rows[tap * PIXELS + p] = start < 0 ? zeros : from + start;
            }
            to[p] = out + image * out_image + it->to[place];
            if (++place == it->places) place = 0, image++;
        }
        multiply_all(rows, it->taps, it->depth, weight, it->channels, bias, to);
    }
}

/* Bring each group's channels side by side: (pixels, groups, channels) to (groups, pixels, channels). In the order of what is read, since
   steps from pixel to pixel are as far apart as the pages of memory. */
static void take(int pixels, int groups, int channels, const float *from, float *to)
{
    for (int pixel = 0; pixel < pixels; pixel++)
        for (int group = 0; group < groups; group++, from += channels)
            memcpy(to + ((size_t)group * pixels + pixel) * channels, from, sizeof(float) * channels);
}

/* The reverse. */
static void put(int pixels, int groups, int channels, const float *from, float *to)
{
    for (int pixel = 0; pixel < pixels; pixel++)
        for (int group = 0; group < groups; group++, to += channels)
            memcpy(to, from + ((size_t)group * pixels + pixel) * channels, sizeof(float) * channels);
}

/* How many images at once: those whose x and y stay in the cache. */
static int images_at_once(const convolution *it)
{
    size_t image = (size_t)it->groups * (it->height * it->width * it->in + it->out_height * it->out_width * it->out);
    size_t most = SLAB / image;
    return most < 1 ? 1 : most < (size_t)it->images ? (int)most : it->images;
}

/* Apply products to images (images, from_pixels, groups, depth) for the result (images, to_pixels, groups, channels). weight: per group. */
static int apply_to_all(const convolution *it, product *products, int count, const float *from, int from_pixels, int depth, float *to, int to_pixels,
                        int channels, const float *weight, const float *bias)
{
    int most = images_at_once(it), groups = it->groups;
    size_t per_group = (size_t)it->rows * it->columns * depth * channels;
    float *in = 0, *out = 0;
    if (groups > 1) {
        in = malloc(sizeof(float) * most * from_pixels * groups * depth), out = malloc(sizeof(float) * most * to_pixels * groups * channels);
        if (!in || !out) return free(in), free(out), 1;
    }
    for (int first = 0; first < it->images; first += most) {
        int images = it->images - first < most ? it->images - first : most;
        const float *start = from + (size_t)first * from_pixels * groups * depth;
        float *end = to + (size_t)first * to_pixels * groups * channels;
        if (groups > 1) take(images * from_pixels, groups, depth, start, in);
        for (int group = 0; group < groups; group++) {
            const float *x = groups > 1 ? in + (size_t)group * images * from_pixels * depth : start, *w = weight + group * per_group;
            float *y = groups > 1 ? out + (size_t)group * images * to_pixels * channels : end;
            for (int i = 0; i < count; w += products[i].taps * depth * channels, i++)
                apply(products + i, images, x, from_pixels * depth, w, bias ? bias + group * channels : 0, y, to_pixels * channels);
        }
        if (groups > 1) put(images * to_pixels, groups, channels, out, end);
    }
    free(in), free(out);
    return 0;
}

int forward(const convolution *it, const float *x, const float *weight, const float *bias, float *y)
{
    int taps = it->rows * it->columns, places = it->out_height * it->out_width, depth = taps * it->in, failed = 1;
    int *from = malloc(sizeof(int) * places * taps), *to = malloc(sizeof(int) * places);
    float *packed = malloc(sizeof(float) * it->groups * depth * it->out); /* (groups, taps, in, out) */
    if (from && to && packed) {
        for (int place = 0; place < places; place++) {
            to[place] = place * it->out;
            for (int tap = 0; tap < taps; tap++) {
                int row = place / it->out_width * it->row_stride - it->row_padding + tap / it->columns;
                int column = place % it->out_width * it->column_stride - it->column_padding + tap % it->columns;
                int inside = row >= 0 && row < it->height && column >= 0 && column < it->width;
                from[place * taps + tap] = inside ? (row * it->width + column) * it->in : -1;
            }
        }
        for (int row = 0; row < it->groups * it->out; row += 16) /* 16 of one group, so that what is written fills lines of the cache */
            for (int k = 0; k < depth; k++)
                for (int lane = 0; lane < 16; lane++)
                    packed[((size_t)(row / it->out) * depth + k) * it->out + row % it->out + lane] = weight[(size_t)(row + lane) * depth + k];
        product found = {places, taps, it->in, it->out, from, to};
        failed = apply_to_all(it, &found, 1, x, it->height * it->width, it->in, y, places, it->out, packed, bias);
    }
    free(from), free(to), free(packed);
    return failed;
}

/* Pixels of x that lie alike between the strides are read by the same taps, and are one product. Each tap is in one of them. */
int input_gradient(const convolution *it, const float *g, const float *weight, float *x)
{
    int taps = it->rows * it->columns, phases = it->row_stride * it->column_stride, pixels = it->height * it->width, failed = 1;
    product *found = calloc(phases, sizeof(product));
    int *from = malloc(sizeof(int) * pixels * taps), *to = malloc(sizeof(int) * pixels), *used = malloc(sizeof(int) * taps);
    float *packed = malloc(sizeof(float) * it->groups * taps * it->out * it->in); /* (groups, taps as in `used`, out, in) */
    if (found && from && to && used && packed) {
        int *next_from = from, *next_to = to, *own = used;
        for (int phase = 0; phase < phases; phase++) {
            int top = phase / it->column_stride, left = phase % it->column_stride, places = 0, count = 0;
            found[phase] = (product){0, 0, it->out, it->in, next_from, next_to};
            for (int tap = 0; tap < taps; tap++) {
                int row = top + it->row_padding - tap / it->columns, column = left + it->column_padding - tap % it->columns;
                if (row % it->row_stride == 0 && column % it->column_stride == 0) own[count++] = tap;
            }
            for (int row = top; row < it->height; row += it->row_stride)
                for (int column = left; column < it->width; column += it->column_stride, places++) {
                    *next_to++ = (row * it->width + column) * it->in;
                    for (int tap = 0; tap < count; tap++) {
                        int i = row + it->row_padding - own[tap] / it->columns, j = column + it->column_padding - own[tap] % it->columns;
                        int inside = i >= 0 && j >= 0 && i / it->row_stride < it->out_height && j / it->column_stride < it->out_width;
                        *next_from++ = inside ? (i / it->row_stride * it->out_width + j / it->column_stride) * it->out : -1;
                    }
                }
            found[phase].places = places, found[phase].taps = count;
            own += count;
        }
        float *next = packed;
        for (int group = 0; group < it->groups; group++)
            for (int tap = 0; tap < taps; tap++)
                for (int o = 0; o < it->out; o++, next += it->in)
                    memcpy(next, weight + ((size_t)(group * it->out + o) * taps + used[tap]) * it->in, sizeof(float) * it->in);
        failed = apply_to_all(it, found, phases, g, it->out_height * it->out_width, it->out, x, pixels, it->in, packed, 0);
    }
    free(found), free(from), free(to), free(used), free(packed);
    return failed;
}

/* Add what some images give to the derivative by one group's weight. */
static void add_weight_gradient(const convolution *it, int images, const float *g, const float *x, float *weight)
{
    int taps = it->rows * it->columns, places = it->out_height * it->out_width;
    const float *of_x[BLOCK], *of_g[BLOCK];
    for (int start = 0; start < images * places; start += BLOCK)
        for (int tap = 0; tap < taps; tap++) {
            int length = 0;
            for (int pixel = start; pixel < start + BLOCK && pixel < images * places; pixel++) {
                int row = pixel % places / it->out_width * it->row_stride - it->row_padding + tap / it->columns;
                int column = pixel % it->out_width * it->column_stride - it->column_padding + tap % it->columns;
                if (row < 0 || row >= it->height || column < 0 || column >= it->width) continue;
                of_x[length] = x + ((size_t)(pixel / places * it->height + row) * it->width + column) * it->in;
                of_g[length++] = g + (size_t)pixel * it->out;
            }
            accumulate(length, of_g, of_x, it->out, it->in, weight + tap * it->in, taps * it->in);
        }
}

int weight_gradient(const convolution *it, const float *g, const float *x, float *weight)
{
    int most = images_at_once(it), groups = it->groups, pixels = it->height * it->width, places = it->out_height * it->out_width;
    size_t of_group = (size_t)it->out * it->rows * it->columns * it->in;
    float *xs = 0, *gs = 0;
    if (groups > 1) {
        xs = malloc(sizeof(float) * most * pixels * groups * it->in), gs = malloc(sizeof(float) * most * places * groups * it->out);
        if (!xs || !gs) return free(xs), free(gs), 1;
    }
    memset(weight, 0, sizeof(float) * groups * of_group);
    for (int first = 0; first < it->images; first += most) {
        int images = it->images - first < most ? it->images - first : most;
        const float *from_x = x + (size_t)first * pixels * groups * it->in, *from_g = g + (size_t)first * places * groups * it->out;
        if (groups > 1) take(images * pixels, groups, it->in, from_x, xs), take(images * places, groups, it->out, from_g, gs);
        for (int group = 0; group < groups; group++)
            add_weight_gradient(it, images, groups > 1 ? gs + (size_t)group * images * places * it->out : from_g,
                                groups > 1 ? xs + (size_t)group * images * pixels * it->in : from_x, weight + group * of_group);
    }
    free(xs), free(gs);
    return 0;
}
