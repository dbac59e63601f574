// Softmax attention in bf16 for processors with AMX, in one pass over the keys: Milakov and Gimelshein 2018,
// arXiv:1805.02867, algorithm 3, in blocks as in Dao et al. 2022, arXiv:2205.14135, algorithm 1.
//
// Nine tenths of the time of torch's own kernel go into the exponential and what stands around it. Here a block of
// scores stays in the first-level cache until it has become shares, which takes two short passes over it.
#define _GNU_SOURCE // for syscall
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ROWS = 32, KEYS = 256, MAX_DIM = 256 };

typedef uint16_t bf16;

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
} Tiles;

static long up(long value, long unit) { return (value + unit - 1) / unit * unit; }

// Keys as the right side of the first product: for 16 keys and 32 dimensions a tile of pairs of dimensions.
static void pack_keys(const bf16 *k, long stride, long m, long d, bf16 *packed) {
    long steps = up(d, 32) / 32, blocks = up(m, 32) / 16;
    memset(packed, 0, sizeof(bf16) * blocks * steps * 512);
    for (long key = 0; key < m; key++) {
        bf16 *column = packed + key / 16 * steps * 512 + key % 16 * 2;
        for (long i = 0; i < d; i += 2) memcpy(column + i * 16, k + key * stride + i, 2 * sizeof(bf16));
    }
}

// Values as the right side of the second one: for 32 keys and 16 dimensions a tile of pairs of keys.
static void pack_values(const bf16 *v, long stride, long m, long d, bf16 *packed) {
    long columns = up(d, 16) / 16, blocks = up(m, 32) / 32;
    memset(packed, 0, sizeof(bf16) * blocks * columns * 512);
    for (long key = 0; key < m; key++) {
        bf16 *row = packed + (key / 32 * columns * 16 + key % 32 / 2) * 32 + key % 2;
        for (long i = 0; i < d; i++) row[i / 16 * 512 + i % 16 * 2] = v[key * stride + i];
    }
}

// 2^x for x <= 0: of the part above the next whole number a polynomial that is off by 8e-5 at most (minimax fit); the
// whole part is added to the exponent.
static inline __m512 exp2_of(__m512 x) {
    __m512 part = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), y = _mm512_set1_ps(7.80240312e-2f);
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(2.26067073e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(6.95833992e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(9.99925126e-1f));
    return _mm512_scalef_ps(y, x);
}

// The scores of 32 keys for all rows.
static inline void products_with_keys(const bf16 *q, const bf16 *right, long steps, float *scores) {
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    for (long step = 0; step < steps; step++) {
        _tile_loadd(4, q + step * 32, steps * 64);
        _tile_loadd(5, q + step * 32 + 16 * steps * 32, steps * 64);
        _tile_loadd(6, right + step * 512, 64);
        _tile_loadd(7, right + (steps + step) * 512, 64);
        _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, scores, KEYS * 4); _tile_stored(1, scores + 16, KEYS * 4);
    _tile_stored(2, scores + 16 * KEYS, KEYS * 4); _tile_stored(3, scores + 16 * KEYS + 16, KEYS * 4);
}

static void add_values(const bf16 *shares, const bf16 *values, long columns, long count, float *out) {
    for (long column = 0; column < columns; column++) {
        _tile_loadd(0, out + column * 16, columns * 64);
        _tile_loadd(1, out + column * 16 + 16 * columns * 16, columns * 64);
        for (long key = 0; key < count; key += 32) {
            _tile_loadd(4, shares + key, KEYS * 2);
            _tile_loadd(5, shares + key + 16 * KEYS, KEYS * 2);
            _tile_loadd(6, values + (key / 32 * columns + column) * 512, 64);
            _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 5, 6);
        }
        _tile_stored(0, out + column * 16, columns * 64);
        _tile_stored(1, out + column * 16 + 16 * columns * 16, columns * 64);
    }
}

// The shares of some keys in the attention of one row, by the largest score so far; what was found before is scaled to
// it.
static void weigh(const float *scores, long count, float scale, float *top, __m512 *sum, bf16 *shares, float *out,
                  long width) {
    __m512 most = _mm512_loadu_ps(scores), other = most;
    for (long key = 0; key < count; key += 32) {
        most = _mm512_max_ps(most, _mm512_loadu_ps(scores + key));
        other = _mm512_max_ps(other, _mm512_loadu_ps(scores + key + 16));
    }
    float highest = _mm512_reduce_max_ps(_mm512_max_ps(most, other)) * scale;
    if (highest > *top) {
        __m512 factor = exp2_of(_mm512_set1_ps(*top - highest));
        for (long i = 0; i < width; i += 16)
            _mm512_storeu_ps(out + i, _mm512_mul_ps(_mm512_loadu_ps(out + i), factor));
        *sum = _mm512_mul_ps(*sum, factor);
        *top = highest;
    }
    __m512 by = _mm512_set1_ps(scale), less = _mm512_set1_ps(*top), first = _mm512_setzero_ps(), second = first;
    for (long key = 0; key < count; key += 32) {
        __m512 a = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(scores + key), by, less));
        __m512 b = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(scores + key + 16), by, less));
        first = _mm512_add_ps(first, a);
        second = _mm512_add_ps(second, b);
        _mm512_storeu_si512(shares + key, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    }
    *sum = _mm512_add_ps(*sum, _mm512_add_ps(first, second));
}

static void attend_rows(const bf16 *q, long q_stride, long rows, const bf16 *keys, const bf16 *values, long m, long d,
                        float scale, bf16 *out, long out_stride) {
    long steps = up(d, 32) / 32, columns = up(d, 16) / 16;
    _Alignas(64) bf16 left[ROWS * MAX_DIM], shares[ROWS * KEYS];
    _Alignas(64) float scores[2][ROWS * KEYS], found[ROWS * MAX_DIM], top[ROWS];
    __m512 sum[ROWS];
    memset(left, 0, sizeof(bf16) * ROWS * steps * 32);
    memset(found, 0, sizeof(float) * ROWS * columns * 16);
    for (long row = 0; row < ROWS; row++) {
        top[row] = -3e38f;
        sum[row] = _mm512_setzero_ps();
        if (row < rows) memcpy(left + row * steps * 32, q + row * q_stride, sizeof(bf16) * d);
    }
    for (long key = 0; key < m && key < KEYS; key += 32)
        products_with_keys(left, keys + key / 16 * steps * 512, steps, scores[0] + key);
    for (long key = 0; key < m; key += KEYS) {
        long count = m - key < KEYS ? m - key : KEYS, whole = up(count, 32);
        float *now = scores[key / KEYS % 2], *next = scores[(key / KEYS + 1) % 2];
        // The next block's products are put between the rows, so that one unit multiplies while others weigh.
        for (long part = 0; part < KEYS / 32; part++) {
            long ahead = key + KEYS + part * 32;
            if (ahead < m) products_with_keys(left, keys + ahead / 16 * steps * 512, steps, next + part * 32);
            for (long row = part * ROWS * 32 / KEYS; row < (part + 1) * ROWS * 32 / KEYS; row++) {
                for (long i = count; i < whole; i++) now[row * KEYS + i] = -3e38f;
                weigh(now + row * KEYS, whole, scale, top + row, sum + row, shares + row * KEYS,
                      found + row * columns * 16, columns * 16);
            }
        }
        add_values(shares, values + key / 32 * columns * 512, columns, whole, found);
    }
    for (long row = 0; row < rows; row++) {
        __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(sum[row]));
        for (long i = 0; i < d; i += 16) {
            __m512 part = _mm512_mul_ps(_mm512_loadu_ps(found + row * columns * 16 + i), share);
            __mmask16 there = d - i < 16 ? (1 << (d - i)) - 1 : -1;
            _mm256_mask_storeu_epi16(out + row * out_stride + i, there, (__m256i)_mm512_cvtneps_pbh(part));
        }
    }
}

// Ask the kernel for AMX's registers; 0 if this process may use them.
long ask_for_tiles(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */); }

// Bytes of memory that `attend` needs beside its arguments.
long scratch_bytes(long batch, long heads, long m, long d) {
    return batch * heads * up(m, 32) * (up(d, 32) + up(d, 16)) * (long)sizeof(bf16);
}

// out[B, N, H * D] = softmax(q k^T / sqrt(D)) v for q [B, N, H * D], k and v [B, M, H * D], all dense; `scale` is
// log2(e) / sqrt(D). D is even and at most MAX_DIM.
void attend(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, bf16 *scratch, long batch, long heads, long n,
            long m, long d, float scale) {
    long width = heads * d, pairs = batch * heads, blocks = up(n, ROWS) / ROWS;
    long key_size = up(m, 32) * up(d, 32), value_size = up(m, 32) * up(d, 16);
    bf16 *keys = scratch, *values = scratch + pairs * key_size;
#pragma omp parallel
    {
        Tiles before, tiles = {.palette = 1};
        for (int i = 0; i < 8; i++) tiles.column_bytes[i] = 64, tiles.rows[i] = 16;
        _tile_storeconfig(&before);
        _tile_loadconfig(&tiles);
#pragma omp for
        for (long pair = 0; pair < pairs; pair++) {
            long from = pair / heads * m * width + pair % heads * d;
            pack_keys(k + from, width, m, d, keys + pair * key_size);
            pack_values(v + from, width, m, d, values + pair * value_size);
        }
#pragma omp for
        for (long task = 0; task < pairs * blocks; task++) {
            long pair = task / blocks, row = task % blocks * ROWS, rows = n - row < ROWS ? n - row : ROWS;
            long from = (pair / heads * n + row) * width + pair % heads * d;
            attend_rows(q + from, width, rows, keys + pair * key_size, values + pair * value_size, m, d, scale,
                        out + from, width);
        }
        _tile_loadconfig(&before);
    }
}
