/* Convolution with kernels of 3 x 3 and no strides, and its two derivatives, with four ninths of the multiplications, on one core.
 *
 * Lavin and Gray 2016, https://arxiv.org/abs/1509.09308, section 4, F(2 x 2, 3 x 3). The images are cut into tiles of 4 x 4, which overlap
 * by two pixels. Each tile gives 2 x 2 pixels of the result,
 *
 *     y = A' [(G w G') * (B' x B)] A,
 *
 * where * multiplies place by place. Summed over the channels, this is one matrix product for each of the 16 places. The gradient by x is
 * the convolution of g with w rotated by 180 degrees. The formula is linear in w, so the gradient by w is
 * G' [sum over tiles (A g A') * (B' x B)] G.
 *
 * Memory: as in convolution.c.
 */

#include "products.h"

enum {
    PLACES = 16,      /* of a tile */
    SLAB = 96 * 1024, /* values of the tiles, before and after the products, that stay in the cache */
    GAP = 16          /* values between two places, so that the places use different cache lines */
};

/* Tiles of images. A tile gives the 2 x 2 pixels from (2 * row, 2 * column) on. It reads the 4 x 4 pixels that begin `up` rows and `left`
   columns before. */
typedef struct {
    int images;
    int height, width, up, left; /* of the images read; up and left may be negative */
    int out_height, out_width;
} tiling;

static int rows_of(const tiling *grid) { return (grid->out_height + 1) / 2; }
static int columns_of(const tiling *grid) { return (grid->out_width + 1) / 2; }
static int tiles_of(const tiling *grid) { return grid->images * rows_of(grid) * columns_of(grid); }

/* Return the number of tiles at once: a multiple of PIXELS that stays in the cache. */
static int at_once(int tiles, int channels)
{
    int most = SLAB / (PLACES * channels) / PIXELS * PIXELS, wanted = (tiles + PIXELS - 1) / PIXELS * PIXELS;
    return most < PIXELS ? PIXELS : most < wanted ? most : wanted;
}

/* Point `to` at the size x size pixels from (top, left) on of an image (height, width, step), or at `outside` for pixels outside it. */
INLINE void locate(const float *image, int height, int width, int top, int left, size_t step, int size, const float *outside,
                   const float **to)
{
    for (int row = top; row < top + size; row++)
        for (int column = left; column < left + size; column++, to++)
            *to = row < 0 || row >= height || column < 0 || column >= width ? outside : image + ((size_t)row * width + column) * step;
}

/* Point `to` at the 4 x 4 pixels that a tile reads, with `step` values from pixel to pixel. A tile beyond the last one reads zeros. */
INLINE void locate_read(const tiling *grid, int tile, const float *x, size_t step, const float **to)
{
    int row = tile / columns_of(grid) % rows_of(grid), column = tile % columns_of(grid), image = tile / (rows_of(grid) * columns_of(grid));
    int height = image < grid->images ? grid->height : 0;
    locate(x + (size_t)image * height * grid->width * step, height, grid->width, 2 * row - grid->up, 2 * column - grid->left, step, 4,
           zeros, to);
}

/* Point `to` at the 2 x 2 pixels of a tile in the result. */
INLINE void locate_given(const tiling *grid, int tile, const float *y, size_t step, const float *outside, const float **to)
{
    int row = tile / columns_of(grid) % rows_of(grid), column = tile % columns_of(grid), image = tile / (rows_of(grid) * columns_of(grid));
    locate(y + (size_t)image * grid->out_height * grid->out_width * step, grid->out_height, grid->out_width, 2 * row, 2 * column, step, 2,
           outside, to);
}

/* B' x B of a tile. to: (PLACES), `apart` values from place to place. */
INLINE void spread_read(const float *const *x, int channels, float *to, size_t apart)
{
    for (int k = 0; k < channels; k += LANES) {
        vec rows[4][4];
        UNROLLED(j, 4) {
            vec a = *(const vec *)(x[j] + k), b = *(const vec *)(x[4 + j] + k), c = *(const vec *)(x[8 + j] + k),
                d = *(const vec *)(x[12 + j] + k);
            rows[0][j] = a - c, rows[1][j] = b + c, rows[2][j] = c - b, rows[3][j] = b - d;
        }
        UNROLLED(i, 4) {
            float *place = to + 4 * i * apart + k;
            *(vec *)place = rows[i][0] - rows[i][2];
            *(vec *)(place + apart) = rows[i][1] + rows[i][2];
            *(vec *)(place + 2 * apart) = rows[i][2] - rows[i][1];
            *(vec *)(place + 3 * apart) = rows[i][1] - rows[i][3];
        }
    }
}

/* A g A' of the 2 x 2 pixels of a tile. */
INLINE void spread_given(const float *const *g, int channels, float *to, size_t apart)
{
    for (int k = 0; k < channels; k += LANES) {
        vec a = *(const vec *)(g[0] + k), b = *(const vec *)(g[1] + k), c = *(const vec *)(g[2] + k), d = *(const vec *)(g[3] + k);
        vec rows[4][2] = {{a, b}, {a + c, b + d}, {a - c, b - d}, {-c, -d}};
        UNROLLED(i, 4) {
            float *place = to + 4 * i * apart + k;
            *(vec *)place = rows[i][0];
            *(vec *)(place + apart) = rows[i][0] + rows[i][1];
            *(vec *)(place + 2 * apart) = rows[i][0] - rows[i][1];
            *(vec *)(place + 3 * apart) = -rows[i][1];
        }
    }
}

/* A' m A of a tile, plus the bias. y: the 2 x 2 pixels to write. */
INLINE void gather(const float *m, size_t apart, int channels, const float *bias, float *const *y)
{
    for (int k = 0; k < channels; k += LANES) {
        vec rows[2][4], plus = bias ? *(const vec *)(bias + k) : (vec){0};
        UNROLLED(j, 4) {
            const float *place = m + j * apart + k;
            vec a = *(const vec *)place, b = *(const vec *)(place + 4 * apart), c = *(const vec *)(place + 8 * apart),
                d = *(const vec *)(place + 12 * apart);
            rows[0][j] = a + b + c, rows[1][j] = b - c - d;
        }
        UNROLLED(i, 2) {
            *(vec *)(y[2 * i] + k) = rows[i][0] + rows[i][1] + rows[i][2] + plus;
            *(vec *)(y[2 * i + 1] + k) = rows[i][1] - rows[i][2] - rows[i][3] + plus;
        }
    }
}

/* G w G' of some kernels. w: their 9 values, `step` apart from tap to tap. to: (PLACES), `apart` values from place to place. */
INLINE void spread_kernels(const float *w, ptrdiff_t step, int channels, float *to, size_t apart)
{
    for (int k = 0; k < channels; k += LANES) {
        vec rows[4][3];
        UNROLLED(j, 3) {
            vec a = *(const vec *)(w + j * step + k), b = *(const vec *)(w + (3 + j) * step + k),
                c = *(const vec *)(w + (6 + j) * step + k);
            rows[0][j] = a, rows[1][j] = (a + b + c) * 0.5f, rows[2][j] = (a - b + c) * 0.5f, rows[3][j] = c;
        }
        UNROLLED(i, 4) {
            float *place = to + 4 * i * apart + k;
            *(vec *)place = rows[i][0];
            *(vec *)(place + apart) = (rows[i][0] + rows[i][1] + rows[i][2]) * 0.5f;
            *(vec *)(place + 2 * apart) = (rows[i][0] - rows[i][1] + rows[i][2]) * 0.5f;
            *(vec *)(place + 3 * apart) = rows[i][2];
        }
    }
}

/* G' m G of some kernels, laid out as in `spread_kernels`. */
INLINE void gather_kernels(const float *m, size_t apart, int channels, float *w, size_t step)
{
    for (int k = 0; k < channels; k += LANES) {
        vec rows[3][4];
        UNROLLED(j, 4) {
            const float *place = m + j * apart + k;
            vec a = *(const vec *)place, b = *(const vec *)(place + 4 * apart), c = *(const vec *)(place + 8 * apart),
                d = *(const vec *)(place + 12 * apart);
            rows[0][j] = a + (b + c) * 0.5f, rows[1][j] = (b - c) * 0.5f, rows[2][j] = (b + c) * 0.5f + d;
        }
        UNROLLED(i, 3) {
            vec plus = (rows[i][1] + rows[i][2]) * 0.5f;
            *(vec *)(w + 3 * i * step + k) = rows[i][0] + plus;
            *(vec *)(w + (3 * i + 1) * step + k) = (rows[i][1] - rows[i][2]) * 0.5f;
            *(vec *)(w + (3 * i + 2) * step + k) = plus + rows[i][3];
        }
    }
}

/* Convolve one group. from: (images, height, width, groups * depth). to: (images, out_height, out_width, groups * channels). Both start at
   the first channel of the group. weight: (PLACES, depth, channels). read, made: memory for `block` tiles. */
static void convolve(const tiling *grid, int groups, const float *from, int depth, float *to, int channels, const float *weight,
                     const float *bias, int block, float *read, float *made)
{
    int tiles = tiles_of(grid);
    size_t step = (size_t)groups * depth, out_step = (size_t)groups * channels, apart = (size_t)block * depth + GAP,
           out_apart = (size_t)block * channels + GAP;
    float nowhere[CHANNELS];
    for (int first = 0; first < tiles; first += block) {
        int count = tiles - first < block ? tiles - first : block, full = (count + PIXELS - 1) / PIXELS * PIXELS;
        for (int tile = 0; tile < full; tile++) { /* tiles beyond the last one read zeros */
            const float *x[PLACES];
            locate_read(grid, first + tile, from, step, x);
            spread_read(x, depth, read + (size_t)tile * depth, apart);
        }
        for (int place = 0; place < PLACES; place++)
            for (int tile = 0; tile < full; tile += PIXELS) {
                const float *x[PIXELS];
                float *y[PIXELS];
                for (int p = 0; p < PIXELS; p++) {
                    x[p] = read + place * apart + (size_t)(tile + p) * depth;
                    y[p] = made + place * out_apart + (size_t)(tile + p) * channels;
                }
                multiply_all(PIXELS, x, 1, &place, depth, weight, channels, 0, y);
            }
        for (int tile = 0; tile < count; tile++) {
            const float *y[4];
            locate_given(grid, first + tile, to, out_step, nowhere, y);
            gather(made + (size_t)tile * channels, out_apart, channels, bias, (float *const *)y);
        }
    }
}

int tiled_forward(const convolution *conv, const float *x, const float *weight, const float *bias, float *y)
{
    tiling tiles = {conv->images, conv->height, conv->width, conv->row_padding, conv->column_padding, conv->out_height, conv->out_width};
    int in = conv->in, out = conv->out, block = at_once(tiles_of(&tiles), in + out);
    float *kernels = malloc(sizeof(float) * PLACES * in * out), *turned = malloc(sizeof(float) * 9 * in * out);
    float *read = malloc(sizeof(float) * PLACES * (block * in + GAP)), *made = malloc(sizeof(float) * PLACES * (block * out + GAP));
    int failed = !kernels || !turned || !read || !made;
    for (int group = 0; !failed && group < conv->groups; group++) {
        turn(weight + (size_t)group * out * 9 * in, out, 9 * in, turned);
        for (int k = 0; k < in; k++)
            spread_kernels(turned + (size_t)k * out, (ptrdiff_t)in * out, out, kernels + (size_t)k * out, (size_t)in * out);
        convolve(&tiles, conv->groups, x + group * in, in, y + group * out, out, kernels, bias ? bias + group * out : 0, block, read, made);
    }
    free(kernels), free(turned), free(read), free(made);
    return failed;
}

int tiled_input_gradient(const convolution *conv, const float *g, const float *weight, float *x)
{
    tiling tiles = {conv->images, conv->out_height, conv->out_width, 2 - conv->row_padding, 2 - conv->column_padding,
                    conv->height, conv->width};
    int in = conv->in, out = conv->out, block = at_once(tiles_of(&tiles), in + out);
    float *kernels = malloc(sizeof(float) * PLACES * in * out);
    float *read = malloc(sizeof(float) * PLACES * (block * out + GAP)), *made = malloc(sizeof(float) * PLACES * (block * in + GAP));
    int failed = !kernels || !read || !made;
    for (int group = 0; !failed && group < conv->groups; group++) {
        for (int o = 0; o < out; o++) /* from the last tap back to the first */
            spread_kernels(weight + ((size_t)(group * out + o) * 9 + 8) * in, -(ptrdiff_t)in, in, kernels + (size_t)o * in,
                           (size_t)in * out);
        convolve(&tiles, conv->groups, g + group * out, out, x + group * in, in, kernels, 0, block, read, made);
    }
    free(kernels), free(read), free(made);
    return failed;
}

int tiled_weight_gradient(const convolution *conv, const float *g, const float *x, float *weight)
{
    tiling tiles = {conv->images, conv->height, conv->width, conv->row_padding, conv->column_padding, conv->out_height, conv->out_width};
    int in = conv->in, out = conv->out, count = tiles_of(&tiles), block = at_once(count, in + out);
    size_t step = (size_t)conv->groups * in, g_step = (size_t)conv->groups * out, apart = (size_t)block * in + GAP,
           g_apart = (size_t)block * out + GAP;
    float *kernels = malloc(sizeof(float) * PLACES * in * out), *read = malloc(sizeof(float) * PLACES * apart),
          *given = malloc(sizeof(float) * PLACES * g_apart);
    const float **of_read = malloc(sizeof(float *) * block), **of_given = malloc(sizeof(float *) * block);
    int failed = !kernels || !read || !given || !of_read || !of_given;
    for (int group = 0; !failed && group < conv->groups; group++) {
        memset(kernels, 0, sizeof(float) * PLACES * in * out);
        for (int first = 0; first < count; first += block) {
            int length = count - first < block ? count - first : block;
            for (int tile = 0; tile < length; tile++) {
                const float *xs[PLACES], *gs[4];
                locate_read(&tiles, first + tile, x + group * in, step, xs);
                locate_given(&tiles, first + tile, g + group * out, g_step, zeros, gs);
                spread_read(xs, in, read + (size_t)tile * in, apart);
                spread_given(gs, out, given + (size_t)tile * out, g_apart);
            }
            for (int place = 0; place < PLACES; place++) {
                for (int tile = 0; tile < length; tile++)
                    of_read[tile] = read + place * apart + (size_t)tile * in, of_given[tile] = given + place * g_apart + (size_t)tile * out;
                accumulate(length, of_given, of_read, out, in, kernels + (size_t)place * in * out, in);
            }
        }
        for (int o = 0; o < out; o++)
            gather_kernels(kernels + (size_t)o * in, (size_t)in * out, in, weight + (size_t)(group * out + o) * 9 * in, in);
    }
    free(kernels), free(read), free(given), free(of_read), free(of_given);
    return failed;
}
