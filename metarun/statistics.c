/* Sums, means and variances of columns, for images whose channels lie last in memory, on one core.
 *
 * Each value comes from memory once. torch's kernels read columns one after the other, each from pages far apart, or take no vectors.
 */

#include <string.h>

enum { COLUMNS = 1024, ROWS = 256 };

/* sum[column] of x (rows, columns); added up for ROWS rows at a time, so that small values are not lost in a large sum. */
void column_sums(long rows, long columns, const float *x, float *sum)
{
    float part[COLUMNS];
    memset(sum, 0, sizeof(float) * columns);
    for (long first = 0; first < rows; first += ROWS)
        for (long left = 0; left < columns; left += COLUMNS) {
            long end = first + ROWS < rows ? first + ROWS : rows, width = columns - left < COLUMNS ? columns - left : COLUMNS;
            memset(part, 0, sizeof part);
            for (long row = first; row < end; row++)
                for (long column = 0; column < width; column++) part[column] += x[row * columns + left + column];
            for (long column = 0; column < width; column++) sum[left + column] += part[column];
        }
}

/* mean[column] and variance[column] (of all values, not of a sample) of x (rows, columns). */
void column_statistics(long rows, long columns, const float *x, float *mean, float *variance)
{
    for (long left = 0; left < columns; left += COLUMNS) {
        long width = columns - left < COLUMNS ? columns - left : COLUMNS;
        float centre[COLUMNS] = {0}, spread[COLUMNS] = {0};
        for (long row = 0; row < rows; row++)
            for (long column = 0; column < width; column++) centre[column] += x[row * columns + left + column];
        for (long column = 0; column < width; column++) centre[column] /= rows;
        for (long row = 0; row < rows; row++)
            for (long column = 0; column < width; column++) {
                float apart = x[row * columns + left + column] - centre[column];
                spread[column] += apart * apart;
            }
        for (long column = 0; column < width; column++) mean[left + column] = centre[column], variance[left + column] = spread[column] / rows;
    }
}
