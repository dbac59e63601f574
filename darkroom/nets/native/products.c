// Products of pictures and weights in bf16 for processors with AMX: 3x3 convolutions and linear layers, of positions
// whose channels lie side by side.
//
// Weights lie as the tiles want them, and in the order in which they are read. Blocks are chosen so that what is read
// again and again stays in a core's caches, for any size of picture and number of rows: nothing is compiled for sizes.
// While one block's sums are finished (bias, what is added or multiplied, rounding) the next one's products run.
#define _GNU_SOURCE // for syscall
#include <immintrin.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SIDE = 32, TILE = 512, BLOCK = SIDE * SIDE };
// What lies in the second-level cache at a time of pictures and of weights, as it was quickest with 2 MiB of it.
enum { STRIP_BYTES = 768 << 10, WEIGHT_BYTES = 768 << 10, MOST_INPUTS = 1280, MOST_ROWS = 512 };
enum { MOST_CHANNELS = 320, MOST_CHANNELS_OF_CORNERS = 640 };

typedef uint16_t bf16;
typedef enum { PLAIN, ADDED, GATED } Way;

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
} Tiles;

// A convolution computes one pixel of the answer for each of the picture, or one at each of its four corners.
typedef struct { long batch, height, width, in, out, corners; } Sizes;

// What is still to be done with the sums of 32 positions and 32 channels, from `row` on. `places` are the positions in
// the answer, -1 for none; without it they are consecutive. The second half's bias is `gates` behind the first half's.
typedef struct {
    const float *sums;
    const int32_t *places;
    long first, row;
    const bf16 *bias, *other;
    bf16 *answer;
    long gates, width;
    Way way;
} Rest;

static inline long least(long a, long b) { return a < b ? a : b; }
static inline long parts(long whole, long part) { return (whole + part - 1) / part; }

static inline __m512 wide(const bf16 *x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x)), 16));
}

// e^x for x <= 0, by 2^x: a polynomial for the part above the next whole number (minimax fit, off by 4e-6 at most).
static inline __m512 exp_of(__m512 x) {
    x = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
    __m512 part = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), y = _mm512_set1_ps(1.36776779e-2f);
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(5.16890943e-2f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(2.41611544e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(6.93014444e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(1.00000367f));
    return _mm512_scalef_ps(y, x);
}

// GELU, x (1 + erf(x / sqrt 2)) / 2: Hendrycks and Gimpel 2016, arXiv:1606.08415. The error function is that of
// Abramowitz and Stegun 1964, 7.1.25, off by 2.5e-5 at most.
static inline __m512 gelu(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f), z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.707106781f));
    __m512 t = _mm512_rcp14_ps(_mm512_fmadd_ps(z, _mm512_set1_ps(0.47047f), one)), y = _mm512_set1_ps(0.7478556f);
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-0.0958798f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.3480242f));
    y = _mm512_mul_ps(y, t);
    __m512 tail = _mm512_mul_ps(y, exp_of(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(z, z))));
    // For x >= 0 it is x - x tail / 2, else x tail / 2.
    __m512 half = _mm512_mul_ps(_mm512_mul_ps(x, _mm512_set1_ps(0.5f)), tail);
    return _mm512_mask_sub_ps(half, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ), x, half);
}

// Finish some of the rows.
static inline void finish(Rest *rest, long count) {
    for (long end = least(SIDE, rest->row + count); rest->row < end; rest->row++) {
        long place = rest->places ? rest->places[rest->row] : rest->first + rest->row;
        if (place < 0) continue;
        const float *sums = rest->sums + rest->row * SIDE;
        __m512 a = _mm512_loadu_ps(sums), b = _mm512_loadu_ps(sums + 16);
        if (rest->bias) a = _mm512_add_ps(a, wide(rest->bias)), b = _mm512_add_ps(b, wide(rest->bias + rest->gates));
        bf16 *to = rest->answer + place * rest->width;
        if (rest->way == GATED) {
            _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(a, gelu(b))));
            continue;
        }
        if (rest->way == ADDED) {
            const bf16 *other = rest->other + place * rest->width;
            a = _mm512_add_ps(a, wide(other)), b = _mm512_add_ps(b, wide(other + 16));
        }
        _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    }
}

// The sums of 32 positions and 32 channels, over a square of `taps` by `taps` positions and `steps` times 32 inputs,
// and on the way a block before this one finished. From a position to the next it is `stride` bytes, from one row of the
// square to the next `row`, and in the weights `w_row`.
static inline __attribute__((always_inline)) void multiply(const char *x, long stride, long row, const char *w,
                                                           long w_row, long steps, long taps, float *sums, int fresh,
                                                           Rest *rest) {
    if (fresh) {
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    } else {
        _tile_loadd(0, sums, SIDE * 4); _tile_loadd(1, sums + 16, SIDE * 4);
        _tile_loadd(2, sums + BLOCK / 2, SIDE * 4); _tile_loadd(3, sums + BLOCK / 2 + 16, SIDE * 4);
    }
    long share = parts(SIDE, taps * taps * steps);
    for (long dy = 0; dy < taps; dy++) {
        const char *left = x + dy * row, *right = w + dy * w_row;
        for (long step = 0; step < steps; step++, left += 64)
            for (long dx = 0; dx < taps; dx++, right += 4 * TILE) {
                _tile_loadd(4, left + dx * stride, stride);
                _tile_loadd(6, right, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(7, right + 2 * TILE, 64);
                _tile_dpbf16ps(1, 4, 7);
                _tile_loadd(5, left + (dx + 16) * stride, stride);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
                if (rest->row < SIDE) finish(rest, share);
            }
    }
    _tile_stored(0, sums, SIDE * 4); _tile_stored(1, sums + 16, SIDE * 4);
    _tile_stored(2, sums + BLOCK / 2, SIDE * 4); _tile_stored(3, sums + BLOCK / 2 + 16, SIDE * 4);
}

// Use the tiles as whole ones; what they were used for before comes back with `_tile_loadconfig`.
static Tiles whole_tiles(void) {
    Tiles before, tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) tiles.column_bytes[i] = 64, tiles.rows[i] = 16;
    _tile_storeconfig(&before);
    _tile_loadconfig(&tiles);
    return before;
}

// Ask the kernel for AMX's registers; 0 if this process may use them.
long ask_for_tiles(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */); }

// ---- Linear layers

typedef struct { long rows, strips, blocks, chunks, inputs, scratch; } LinearPlan;

static LinearPlan plan_linear(long count, long in, long out, long threads) {
    LinearPlan p;
    p.inputs = in;
    for (long n = 1; p.inputs > MOST_INPUTS; n++) if (in % n == 0 && in / n % 32 == 0) p.inputs = in / n;
    long blocks = out / SIDE;
    p.blocks = least(blocks, WEIGHT_BYTES / (p.inputs * SIDE * 2));
    p.chunks = parts(blocks, p.blocks);
    p.rows = p.inputs < in ? least(count, MOST_ROWS) : count;
    p.strips = parts(count, p.rows);
    for (; p.strips * p.chunks < threads && p.blocks > 1; p.chunks = parts(blocks, p.blocks))
        p.blocks = parts(p.blocks, 2);
    if (p.strips * p.chunks % threads) p.strips = parts(p.strips, threads) * threads;
    p.rows = parts(parts(count, p.strips), SIDE) * SIDE;
    p.strips = parts(count, p.rows);
    p.blocks = parts(blocks, p.chunks), p.chunks = parts(blocks, p.blocks);
    p.scratch = p.inputs < in ? p.rows / SIDE * p.blocks : 2;
    return p;
}

long linear_scratch_bytes(long count, long in, long out, long threads) {
    LinearPlan p = plan_linear(count, in, out, threads);
    return p.scratch * BLOCK * 4 * threads;
}

// answer[count, out] = x[count, in] times the weights (packed, see `native_products.py`) plus bias[out] and, where the
// way says so, plus other[count, out]; or, gated, [count, out / 2]. `in` and `out` are multiples of 32, `count` is at
// least 32.
void linear(const bf16 *x, const bf16 *weights, const bf16 *bias, const bf16 *other, bf16 *answer, float *scratch,
            long count, long in, long out, long way, long threads) {
    LinearPlan p = plan_linear(count, in, out, threads);
    long blocks = out / SIDE, side = way == GATED ? SIDE / 2 : SIDE, stride = in * 2;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
    for (long strip = 0; strip < p.strips; strip++)
        for (long chunk = 0; chunk < p.chunks; chunk++) {
            Tiles before = whole_tiles();
            float *sums = scratch + p.scratch * BLOCK * omp_get_thread_num();
            long from = chunk * p.blocks, to = least(blocks, from + p.blocks), turn = 0;
            long begin = strip * p.rows, end = least(count, begin + p.rows);
            Rest rest = {.row = SIDE};
            for (long k = 0; k < in; k += p.inputs)
                for (long m = begin; m < end; m += SIDE)
                    for (long n = from; n < to; n++, turn++) {
                        // The last rows may be done twice, with the same answer.
                        long first = least(m, count - SIDE), slot = (m - begin) / SIDE * (to - from) + n - from;
                        float *here = sums + (p.inputs < in ? slot : turn % 2) * BLOCK;
                        const bf16 *right = weights + (n * in + k) * SIDE;
                        multiply((const char *)(x + first * in + k), stride, 0, (const char *)right, 0,
                                 p.inputs / 32, 1, here, k == 0, &rest);
                        if (rest.row < SIDE) finish(&rest, SIDE);
                        if (k + p.inputs < in) continue;
                        rest = (Rest){.sums = here, .first = first, .bias = bias ? bias + n * side : 0,
                                      .gates = way == GATED ? out / 2 : 16, .other = other + n * side,
                                      .answer = answer + n * side, .width = blocks * side, .way = way};
                    }
            finish(&rest, SIDE);
            _tile_loadconfig(&before);
        }
}

// ---- Convolutions

// A strip is some rows of all pictures, which lie below each other with a row of zeros between, behind a column of
// zeros. A position's neighbours are then at the same distances everywhere. What is computed at the zeros nobody looks at.
typedef struct { long rows, strips, chunks, blocks, channels, strip_size, positions, sums; } ConvPlan;

static ConvPlan plan_conv(Sizes s, long threads) {
    ConvPlan p;
    long most_channels = s.corners > 1 ? MOST_CHANNELS_OF_CORNERS : MOST_CHANNELS;
    p.channels = s.in;
    for (long n = 1; p.channels > most_channels; n++) if (s.in % n == 0 && s.in / n % 32 == 0) p.channels = s.in / n;
    long line = s.width + 1, all = s.batch * (s.height + 1) - 1, blocks = s.out / SIDE;
    long most = STRIP_BYTES / (line * p.channels * 2) - 2;
    p.strips = parts(all, most > 0 ? most : 1);
    if (p.strips > 1) p.strips = parts(p.strips, threads) * threads;
    p.rows = parts(all, p.strips);
    p.strips = parts(all, p.rows);
    p.chunks = least(blocks, parts(threads, p.strips));
    p.blocks = parts(blocks, p.chunks);
    p.chunks = parts(blocks, p.blocks);
    p.positions = parts(p.rows * line, SIDE) * SIDE;
    p.strip_size = parts((p.positions + 2 * line + 2) * p.channels, 32) * 32;
    p.sums = (p.channels < s.in ? p.positions / SIDE * p.blocks : 2) * BLOCK;
    return p;
}

static long conv_scratch(ConvPlan p) { return p.sums * 4 + p.strip_size * 2 + parts(p.positions, 16) * 64; }

long conv_scratch_bytes(long batch, long height, long width, long in, long out, long corners, long threads) {
    return conv_scratch(plan_conv((Sizes){batch, height, width, in, out, corners}, threads)) * threads;
}

// Some channels of the rows before `row` to after the last, as a strip.
static void fill_strip(const bf16 *x, Sizes s, long row, long rows, long channel, long channels, bf16 *strip) {
    long all = s.batch * (s.height + 1) - 1;
    for (long r = row - 1; r <= row + rows; r++, strip += (s.width + 1) * channels) {
        long y = r % (s.height + 1);
        if (r < 0 || r >= all || y == s.height) {
            memset(strip, 0, (s.width + 1) * channels * 2);
            continue;
        }
        memset(strip, 0, channels * 2);
        const bf16 *from = x + (r / (s.height + 1) * s.height + y) * s.width * s.in + channel;
        if (channels == s.in) memcpy(strip + channels, from, s.width * channels * 2);
        else for (long v = 0; v < s.width; v++) memcpy(strip + (v + 1) * channels, from + v * s.in, channels * 2);
    }
    memset(strip, 0, channels * 2); // right of the last one
}

// Where a strip's positions are in the answer, at one of their corners.
static void find_places(Sizes s, long row, long rows, long positions, long corner, int32_t *places) {
    long line = s.width + 1, scale = s.corners > 1 ? 2 : 1;
    for (long at = 0; at < positions; at++) {
        long r = row + at / line, v = at % line, y = r % (s.height + 1);
        int there = at < rows * line && v < s.width && y < s.height;
        y = (r / (s.height + 1) * s.height + y) * scale + corner / 2, v = v * scale + corner % 2;
        places[at] = there ? y * s.width * scale + v : -1;
    }
}

// A convolution with `taps` by `taps` positions: 3, or at each of four corners 2 of the 3 that are looked at.
static inline __attribute__((always_inline)) void convolve_by(const bf16 *x, const bf16 *weights, const bf16 *bias,
                                                              const bf16 *other, bf16 *answer, char *scratch, Sizes s,
                                                              Way way, long taps, long threads) {
    ConvPlan p = plan_conv(s, threads);
    long in = s.in, out = s.out;
    long line = s.width + 1, all = s.batch * (s.height + 1) - 1, w_row = in * taps * SIDE * 2;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
    for (long strip_at = 0; strip_at < p.strips; strip_at++)
        for (long chunk = 0; chunk < p.chunks; chunk++) {
            Tiles before = whole_tiles();
            float *sums = (float *)(scratch + conv_scratch(p) * omp_get_thread_num());
            bf16 *strip = (bf16 *)(sums + p.sums);
            int32_t *places = (int32_t *)(strip + p.strip_size);
            long row = strip_at * p.rows, rows = least(p.rows, all - row), positions = rows * line, turn = 0;
            long from = chunk * p.blocks, to = least(out / SIDE, from + p.blocks), blocks = parts(positions, SIDE);
            for (long corner = 0; corner < s.corners; corner++) {
                find_places(s, row, rows, blocks * SIDE, corner, places);
                long begin = (corner / 2 * line + corner % 2) * p.channels;
                Rest rest = {.row = SIDE};
                for (long channel = 0; channel < in; channel += p.channels) {
                    if (corner == 0 || p.channels < in) fill_strip(x, s, row, rows, channel, p.channels, strip);
                    for (long n = from; n < to; n++)
                        for (long m = 0; m < blocks; m++, turn++) {
                            float *here = sums + (p.channels < in ? (n - from) * blocks + m : turn % 2) * BLOCK;
                            const bf16 *right = weights + ((n * s.corners + corner) * in * taps + channel) * taps * SIDE;
                            multiply((const char *)(strip + m * SIDE * p.channels + begin), p.channels * 2,
                                     line * p.channels * 2, (const char *)right, w_row, p.channels / 32, taps, here,
                                     channel == 0, &rest);
                            if (rest.row < SIDE) finish(&rest, SIDE);
                            if (channel + p.channels < in) continue;
                            rest = (Rest){.sums = here, .places = places + m * SIDE,
                                          .bias = bias ? bias + n * SIDE : 0, .gates = 16, .other = other + n * SIDE,
                                          .answer = answer + n * SIDE, .width = out, .way = way};
                        }
                }
                finish(&rest, SIDE);
            }
            _tile_loadconfig(&before);
        }
}

// answer[batch, height, width, out] = x[batch, height, width, in] convolved with the weights (packed, see
// `native_products.py`), 3x3 with a margin of zeros, plus bias[out] and, where the way says so, plus other, which is as
// large as the answer. `in` and `out` are multiples of 32.
void convolve(const bf16 *x, const bf16 *weights, const bf16 *bias, const bf16 *other, bf16 *answer, char *scratch,
              long batch, long height, long width, long in, long out, long way, long threads) {
    convolve_by(x, weights, bias, other, answer, scratch, (Sizes){batch, height, width, in, out, 1}, way, 3, threads);
}

// answer[batch, 2 height, 2 width, out]: the same of a picture twice as high and wide, of which every pixel of x is four.
// Each pixel of the answer sees two by two of x, by sums of the weights.
void convolve_doubled(const bf16 *x, const bf16 *weights, const bf16 *bias, bf16 *answer, char *scratch, long batch,
                      long height, long width, long in, long out, long threads) {
    convolve_by(x, weights, bias, 0, answer, scratch, (Sizes){batch, height, width, in, out, 4}, PLAIN, 2, threads);
}
