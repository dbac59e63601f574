// Softmax attention in bf16 for processors with AMX, in blocks of keys as in Dao et al. 2022, arXiv:2205.14135, but with
// neither a running maximum nor scaling by it.
//
// Nine tenths of the time of torch's own kernel go into the exponential and what stands around it. Here a block of
// scores stays in the first-level cache until it has become shares, in one short pass over it: instead of the largest
// score of a row, which would have to be looked for, a bound of it is taken off all of them, the length of the query
// times that of the longest key (Cauchy and Schwarz). Products and exponentials come one after the other: put between each
// other they take as long.
#define _GNU_SOURCE // for syscall
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ROWS = 32, KEYS = 64, BLOCK = 32, MAX_DIM = 256, MAX_COLUMNS = MAX_DIM / 16 + 1 };

// Below this the sum of a row's shares may have lost some of them: the bound was too far above the largest score.
static const float LEAST_SUM = 0x1p-100f;

// The score of a key that is not there.
static const float NOTHING = -1e30f;

typedef uint16_t bf16;

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
} Tiles;

static long least(long a, long b) { return a < b ? a : b; }
static long up(long value, long unit) { return (value + unit - 1) / unit * unit; }

// Two bf16 numbers in each 32 bits.
static inline __m512 low(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
static inline __m512 high(__m512i pairs) { return _mm512_castsi512_ps(_mm512_and_epi32(pairs, _mm512_set1_epi32(-65536))); }

static inline __m512 add_squares(__m512i pairs, __m512 sum) {
    sum = _mm512_fmadd_ps(low(pairs), low(pairs), sum);
    return _mm512_fmadd_ps(high(pairs), high(pairs), sum);
}

// Keys as the right side of the first product: for 16 keys and 32 dimensions a tile of pairs of dimensions. The length
// of the longest one.
static float pack_keys(const bf16 *k, long stride, long m, long d, bf16 *packed) {
    long steps = up(d, 32) / 32;
    __m512i number = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512i places = _mm512_mullo_epi32(number, _mm512_set1_epi32(stride / 2)), none = _mm512_setzero_si512();
    __m512 longest = _mm512_setzero_ps();
    memset(packed, 0, sizeof(bf16) * up(m, BLOCK) / 16 * steps * 512);
    for (long key = 0; key < m; key += 16, packed += steps * 512) {
        __mmask16 there = m - key < 16 ? (1 << (m - key)) - 1 : -1;
        __m512 squares = _mm512_setzero_ps();
        for (long i = 0; i < d; i += 2) {
            __m512i pairs = _mm512_mask_i32gather_epi32(none, there, places, k + key * stride + i, 4);
            squares = add_squares(pairs, squares);
            _mm512_storeu_si512(packed + i * 16, pairs);
        }
        longest = _mm512_max_ps(longest, squares);
    }
    return __builtin_sqrtf(_mm512_reduce_max_ps(longest));
}

// Sixteen dimensions of a value from the i-th on, with a one behind the last.
static inline __m512i part_of(const bf16 *v, long stride, long m, long d, long key, long i) {
    if (key >= m) return _mm512_setzero_si512();
    __mmask16 there = d - i < 16 ? (1 << (d - i)) - 1 : -1, one = d - i < 16 ? 1 << (d - i) : 0;
    __m256i ones = _mm256_maskz_set1_epi16(one, 0x3f80);
    return _mm512_cvtepu16_epi32(_mm256_mask_loadu_epi16(ones, there, v + key * stride + i));
}

// Values as the right side of the second one: for 32 keys and 16 dimensions a tile of pairs of keys, each with the one
// 16 behind it, as `weigh` has them. The one behind each value makes the sum of the shares a part of the product.
static void pack_values(const bf16 *v, long stride, long m, long d, bf16 *packed) {
    for (long block = 0; block < up(m, BLOCK); block += BLOCK)
        for (long i = 0; i <= d; i += 16)
            for (long key = block; key < block + 16; key++, packed += 32) {
                __m512i first = part_of(v, stride, m, d, key, i), second = part_of(v, stride, m, d, key + 16, i);
                _mm512_storeu_si512(packed, _mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
            }
}

// 2^x, and a half of the last digit that bf16 has: cut off there, it is rounded. Of the part of x above the next whole
// number it is a polynomial, off by 8e-5 at most (minimax fit); the whole part is added to the exponent.
static inline __m512 exp2_to_cut(__m512 x) {
    __m512 part = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), y = _mm512_set1_ps(7.80240312e-2f);
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(2.26067073e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(6.95833992e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(9.99925126e-1f + 0x1p-8f));
    return _mm512_scalef_ps(y, x);
}

// One head of one picture: its keys and values as they were packed, `m` of them in `d` dimensions, which are so many
// steps of the first product and columns of the second; and what the scores are multiplied with.
typedef struct {
    const bf16 *keys, *values;
    long m, d, steps, columns;
    float longest, scale;
} Head;

// The scores of 32 keys for all rows.
static inline void score(const Head *h, const bf16 *q, long key, float *scores) {
    const bf16 *right = h->keys + key / 16 * h->steps * 512;
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    for (long step = 0; step < h->steps; step++) {
        _tile_loadd(4, q + step * 32, h->steps * 64);
        _tile_loadd(6, right + step * 512, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right + (h->steps + step) * 512, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, q + step * 32 + 16 * h->steps * 32, h->steps * 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, scores, KEYS * 4); _tile_stored(1, scores + 16, KEYS * 4);
    _tile_stored(2, scores + 16 * KEYS, KEYS * 4); _tile_stored(3, scores + 16 * KEYS + 16, KEYS * 4);
}

// The shares of some keys in the attention of one row, not yet divided by their sum. Of 32 keys each of the first
// sixteen stands before the one 16 behind it.
static inline void weigh(const float *scores, long blocks, __m512 scale, float top, bf16 *shares) {
    __m512 less = _mm512_set1_ps(top);
    for (long key = 0; key < blocks * BLOCK; key += BLOCK) {
        __m512 a = exp2_to_cut(_mm512_fmsub_ps(_mm512_loadu_ps(scores + key), scale, less));
        __m512 b = exp2_to_cut(_mm512_fmsub_ps(_mm512_loadu_ps(scores + key + 16), scale, less));
        __m512i first = _mm512_srli_epi32(_mm512_castps_si512(a), 16);
        _mm512_storeu_si512(shares + key, _mm512_mask_blend_epi16(0xaaaaaaaa, first, _mm512_castps_si512(b)));
    }
}

// What the values of some keys add to three, two or one times 16 columns of what is found.
static inline __attribute__((always_inline)) void add(const Head *h, const bf16 *shares, long key, long blocks,
                                                      long column, long wide, float *found) {
    long stride = h->columns * 64;
    float *upper = found + column * 16, *lower = upper + 16 * h->columns * 16;
    const bf16 *right = h->values + (key / BLOCK * h->columns + column) * 512;
    _tile_loadd(0, upper, stride); _tile_loadd(1, lower, stride);
    if (wide > 1) { _tile_loadd(2, upper + 16, stride); _tile_loadd(3, lower + 16, stride); }
    if (wide > 2) { _tile_loadd(4, upper + 32, stride); _tile_loadd(5, lower + 32, stride); }
    for (long block = 0; block < blocks; block++, right += h->columns * 512) {
        _tile_loadd(6, shares + block * BLOCK, KEYS * 2);
        _tile_loadd(7, right, 64); _tile_dpbf16ps(0, 6, 7);
        if (wide > 1) { _tile_loadd(7, right + 512, 64); _tile_dpbf16ps(2, 6, 7); }
        if (wide > 2) { _tile_loadd(7, right + 1024, 64); _tile_dpbf16ps(4, 6, 7); }
        _tile_loadd(6, shares + block * BLOCK + 16 * KEYS, KEYS * 2);
        if (wide > 2) _tile_dpbf16ps(5, 6, 7);
        if (wide > 1) { _tile_loadd(7, right + 512, 64); _tile_dpbf16ps(3, 6, 7); }
        _tile_loadd(7, right, 64); _tile_dpbf16ps(1, 6, 7);
    }
    _tile_stored(0, upper, stride); _tile_stored(1, lower, stride);
    if (wide > 1) { _tile_stored(2, upper + 16, stride); _tile_stored(3, lower + 16, stride); }
    if (wide > 2) { _tile_stored(4, upper + 32, stride); _tile_stored(5, lower + 32, stride); }
}

// All of it for some keys and all rows.
static inline __attribute__((always_inline)) void attend_keys(const Head *h, const bf16 *q, long key, long blocks,
                                                              const float *top, float *found) {
    _Alignas(64) float scores[ROWS * KEYS];
    _Alignas(64) bf16 shares[ROWS * KEYS];
    __m512 scale = _mm512_set1_ps(h->scale);
    for (long block = 0; block < blocks; block++) score(h, q, key + block * BLOCK, scores + block * BLOCK);
    for (long row = 0; row < ROWS; row++) {
        // Where there is no key the score is 0, which may be far above what is taken off in a second attempt.
        for (long i = h->m - key; i < blocks * BLOCK; i++) scores[row * KEYS + i] = NOTHING;
        weigh(scores + row * KEYS, blocks, scale, top[row], shares + row * KEYS);
    }
    long column = 0;
    for (; h->columns - column > 2; column += 3) add(h, shares, key, blocks, column, 3, found);
    if (h->columns - column == 2) add(h, shares, key, blocks, column, 2, found);
    if (h->columns - column == 1) add(h, shares, key, blocks, column, 1, found);
}

// What is taken off the scores of each row: at least the largest one.
static void bound_scores(const Head *h, const bf16 *q, float *top) {
    for (long row = 0; row < ROWS; row++) {
        __m512 squares = _mm512_setzero_ps();
        for (long step = 0; step < h->steps; step++)
            squares = add_squares(_mm512_loadu_si512(q + (row * h->steps + step) * 32), squares);
        top[row] = __builtin_sqrtf(_mm512_reduce_add_ps(squares)) * h->longest * h->scale;
    }
}

// The largest one itself.
static void find_largest_scores(const Head *h, const bf16 *q, float *top) {
    _Alignas(64) float scores[ROWS * KEYS];
    __m512 most[ROWS];
    for (long row = 0; row < ROWS; row++) most[row] = _mm512_set1_ps(NOTHING);
    for (long key = 0; key < h->m; key += BLOCK) {
        score(h, q, key, scores);
        for (long row = 0; row < ROWS; row++) {
            float *from = scores + row * KEYS;
            for (long i = h->m - key; i < BLOCK; i++) from[i] = NOTHING;
            __m512 both = _mm512_max_ps(_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16));
            most[row] = _mm512_max_ps(most[row], both);
        }
    }
    for (long row = 0; row < ROWS; row++) top[row] = _mm512_reduce_max_ps(most[row]) * h->scale;
}

// Sums of values by their shares for all rows, behind each the sum of the shares. Whether that is enough to divide by.
static int sum_values(const Head *h, const bf16 *q, const float *top, float *found) {
    memset(found, 0, sizeof(float) * ROWS * h->columns * 16);
    long key = 0;
    for (; key + KEYS <= h->m; key += KEYS) attend_keys(h, q, key, KEYS / BLOCK, top, found);
    if (key < h->m) attend_keys(h, q, key, up(h->m - key, BLOCK) / BLOCK, top, found);
    for (long row = 0; row < ROWS; row++)
        if (!(found[row * h->columns * 16 + h->d] >= LEAST_SUM)) return 0;
    return 1;
}

static void attend_rows(const Head *h, const bf16 *q, long stride, long rows, bf16 *out) {
    _Alignas(64) bf16 left[ROWS * MAX_DIM];
    _Alignas(64) float found[ROWS * MAX_COLUMNS * 16], top[ROWS];
    memset(left, 0, sizeof(bf16) * ROWS * h->steps * 32);
    for (long row = 0; row < rows; row++) memcpy(left + row * h->steps * 32, q + row * stride, sizeof(bf16) * h->d);
    bound_scores(h, left, top);
    if (!sum_values(h, left, top, found)) {
        find_largest_scores(h, left, top);
        sum_values(h, left, top, found);
    }
    for (long row = 0; row < rows; row++) {
        const float *from = found + row * h->columns * 16;
        __m512 share = _mm512_set1_ps(1.0f / from[h->d]);
        for (long i = 0; i < h->d; i += 16) {
            __m512 part = _mm512_mul_ps(_mm512_loadu_ps(from + i), share);
            __mmask16 there = h->d - i < 16 ? (1 << (h->d - i)) - 1 : -1;
            _mm256_mask_storeu_epi16(out + row * stride + i, there, (__m256i)_mm512_cvtneps_pbh(part));
        }
    }
}

// Ask the kernel for AMX's registers; 0 if this process may use them.
long ask_for_tiles(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */); }

static long key_numbers(long m, long d) { return up(m, BLOCK) * up(d, 32); }
static long value_numbers(long m, long d) { return up(m, BLOCK) * (d / 16 + 1) * 16; }

// Bytes of memory that `attend` needs beside its arguments.
long scratch_bytes(long batch, long heads, long m, long d) {
    return batch * heads * ((key_numbers(m, d) + value_numbers(m, d)) * sizeof(bf16) + sizeof(float));
}

// out[B, N, H * D] = softmax(q k^T / sqrt(D)) v for q [B, N, H * D], k and v [B, M, H * D], all dense; `scale` is
// log2(e) / sqrt(D). D is even and at most MAX_DIM.
void attend(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, bf16 *scratch, long batch, long heads, long n,
            long m, long d, float scale) {
    long width = heads * d, pairs = batch * heads, blocks = up(n, ROWS) / ROWS;
    bf16 *keys = scratch, *values = keys + pairs * key_numbers(m, d);
    float *longest = (float *)(values + pairs * value_numbers(m, d));
#pragma omp parallel
    {
        Tiles before, tiles = {.palette = 1};
        for (int i = 0; i < 8; i++) tiles.column_bytes[i] = 64, tiles.rows[i] = 16;
        _tile_storeconfig(&before);
        _tile_loadconfig(&tiles);
        unsigned ways = _mm_getcsr();
        _mm_setcsr(ways | _MM_FLUSH_ZERO_ON); // shares below 2^-126 would take a hundred times as long
#pragma omp for
        for (long pair = 0; pair < pairs; pair++) {
            long from = pair / heads * m * width + pair % heads * d;
            longest[pair] = pack_keys(k + from, width, m, d, keys + pair * key_numbers(m, d));
            pack_values(v + from, width, m, d, values + pair * value_numbers(m, d));
        }
#pragma omp for
        for (long task = 0; task < pairs * blocks; task++) {
            long pair = task / blocks, row = task % blocks * ROWS;
            long from = (pair / heads * n + row) * width + pair % heads * d;
            Head head = {.keys = keys + pair * key_numbers(m, d), .values = values + pair * value_numbers(m, d),
                         .m = m, .d = d, .steps = up(d, 32) / 32, .columns = d / 16 + 1,
                         .longest = longest[pair], .scale = scale};
            attend_rows(&head, q + from, width, least(n - row, ROWS), out + from);
        }
        _mm_setcsr(ways);
        _tile_loadconfig(&before);
    }
}
