// Group normalisation (Wu and He 2018, arXiv:1803.08494) of bf16 pictures in channels-last order, with a sum before it
// and SiLU after it, in two passes over memory. Plain C that compilers turn into the vectors that a processor has.
//
// A picture is cut into blocks in the same way whatever stands beside it and however many threads there are, and what
// the blocks found is put together in their order: its bytes depend on nothing else.
#include <omp.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

enum { STRETCH = 32, WIDE = 64, BLOCKS = 64 };

// Numbers from which on it pays to wake other threads: for a picture each, and to wait for each other amid one picture.
enum { WORTH_WAKING = 1 << 17, WORTH_WAITING = 1 << 20 };

typedef uint16_t bf16;

static inline float widened(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

// To the nearest, of two as near ones the even one. What is no number stays none: it comes from a bf16 one or from the
// processor, and the lower half of either is zero.
static inline bf16 rounded(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Of `width` channels of at most STRETCH pixels: mean and sum of squared distances from it, put together with what
// `seen` pixels before gave as in Chan, Golub and LeVeque 1979, equation 2.1. Near to the truth for pictures of nearly
// one colour too.
static inline __attribute__((always_inline)) void take_in(const bf16 *restrict x, long count, long channels, long width,
                                                          long seen, float *restrict mean, float *restrict spread) {
    float sum[WIDE] = {0}, squares[WIDE] = {0};
    for (long pixel = 0; pixel < count; pixel++)
        for (long c = 0; c < width; c++) sum[c] += widened(x[pixel * channels + c]);
    float gain = (float)count / (float)(seen + count), weight = (float)seen * gain;
    for (long c = 0; c < width; c++) sum[c] = count == STRETCH ? sum[c] * (1.0f / STRETCH) : sum[c] / (float)count;
    for (long pixel = 0; pixel < count; pixel++)
        for (long c = 0; c < width; c++) {
            float off = widened(x[pixel * channels + c]) - sum[c];
            squares[c] += off * off;
        }
    for (long c = 0; c < width; c++) {
        float off = sum[c] - mean[c];
        mean[c] += off * gain;
        spread[c] += squares[c] + off * off * weight;
    }
}

// The same of all channels of a block.
static void measure(const bf16 *x, long pixels, long channels, float *mean, float *spread) {
    memset(mean, 0, sizeof(float) * channels);
    memset(spread, 0, sizeof(float) * channels);
    for (long from = 0; from < pixels; from += STRETCH) {
        long count = pixels - from < STRETCH ? pixels - from : STRETCH, c = 0;
        const bf16 *stretch = x + from * channels;
        for (; c + WIDE <= channels; c += WIDE) take_in(stretch + c, count, channels, WIDE, from, mean + c, spread + c);
        if (c < channels) take_in(stretch + c, count, channels, channels - c, from, mean + c, spread + c);
    }
}

// Pixels of a block: whole stretches, and so many that there are at most BLOCKS of them.
static long block_size(long pixels) {
    long stretches = (pixels + STRETCH - 1) / STRETCH;
    return (stretches + BLOCKS - 1) / BLOCKS * STRETCH;
}

// What is to be taken off every channel and what it is then multiplied with, for a picture whose blocks are measured.
// `added` is what the normalisation is to see added to every pixel, if anything.
static void settle(const float *means, const float *spreads, long pixels, long channels, long groups,
                   const bf16 *added, const bf16 *weight, float eps, float *centre, float *factor) {
    long size = block_size(pixels), blocks = (pixels + size - 1) / size, width = channels / groups;
    for (long group = 0; group < groups; group++) {
        double mean = 0, spread = 0;
        for (int second = 0; second < 2; second++) {
            for (long block = 0; block < blocks; block++) {
                double count = pixels - block * size < size ? pixels - block * size : size;
                for (long c = group * width; c < (group + 1) * width; c++) {
                    double found = means[block * channels + c] + (added ? widened(added[c]) : 0.0f);
                    if (second)
                        spread += spreads[block * channels + c] + count * (found - mean) * (found - mean);
                    else
                        mean += found * count;
                }
            }
            if (!second) mean /= (double)pixels * width;
        }
        double scale = 1 / __builtin_sqrt(spread / ((double)pixels * width) + eps);
        for (long c = group * width; c < (group + 1) * width; c++) {
            centre[c] = (float)(mean - (added ? widened(added[c]) : 0.0f));
            factor[c] = (float)(scale * widened(weight[c]));
        }
    }
}

#ifdef __AVX512BF16__

// The same as below in half as many instructions, on 16 numbers.
static inline __m512 silu16(__m512 x) {
    __m512 power = _mm512_min_ps(_mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f)), _mm512_set1_ps(100.0f));
    __m512 whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 part = _mm512_sub_ps(power, whole), y = _mm512_set1_ps(9.57010161e-3f);
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(5.59178603e-2f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(2.40247448e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(6.93121815e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(0.999999261f));
    return _mm512_mul_ps(x, _mm512_rcp14_ps(_mm512_add_ps(_mm512_scalef_ps(y, whole), _mm512_set1_ps(1.0f))));
}

static inline __m512 widened16(const bf16 *x, __mmask16 there) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, x)), 16));
}

static inline void apply_row(const bf16 *x, bf16 *out, long channels, const float *centre, const float *factor,
                             const bf16 *bias, int activate) {
    for (long c = 0; c < channels; c += 16) {
        __mmask16 there = channels - c < 16 ? (1 << (channels - c)) - 1 : -1;
        __m512 off = _mm512_sub_ps(widened16(x + c, there), _mm512_maskz_loadu_ps(there, centre + c));
        __m512 y = _mm512_fmadd_ps(off, _mm512_maskz_loadu_ps(there, factor + c), widened16(bias + c, there));
        if (activate) y = silu16(y);
        _mm256_mask_storeu_epi16(out + c, there, (__m256i)_mm512_cvtneps_pbh(y));
    }
}

#else

// x / (1 + e^-x). The power's whole part goes into the exponent, of the rest there is a polynomial that is off by 3e-6
// at most (minimax fit); Newton's method divides, quicker than a division.
static inline float silu(float x) {
    float power = x * -1.44269504f;
    power = power > 100.0f ? 100.0f : power;
    power = power > -100.0f ? power : -100.0f;
    float whole = (power + 12582912.0f) - 12582912.0f, part = power - whole;
    float y = 9.57010161e-3f;
    y = y * part + 5.59178603e-2f;
    y = y * part + 2.40247448e-1f;
    y = y * part + 6.93121815e-1f;
    y = y * part + 0.999999261f;
    uint32_t bits = (uint32_t)((int32_t)whole + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    float below = 1.0f + y * scale;
    memcpy(&bits, &below, sizeof bits);
    bits = 0x7ef311c7u - bits;
    float share;
    memcpy(&share, &bits, sizeof share);
    share *= 2.0f - below * share;
    share *= 2.0f - below * share;
    share *= 2.0f - below * share;
    return x * share;
}

static inline void apply_row(const bf16 *x, bf16 *out, long channels, const float *centre, const float *factor,
                             const bf16 *bias, int activate) {
#pragma omp simd
    for (long c = 0; c < channels; c++) {
        float y = (widened(x[c]) - centre[c]) * factor[c] + widened(bias[c]);
        out[c] = rounded(activate ? silu(y) : y);
    }
}

#endif

static void apply(const bf16 *x, bf16 *out, long pixels, long channels, const float *centre, const float *factor,
                  const bf16 *bias, int activate) {
    for (long at = 0; at < pixels * channels; at += channels)
        if (activate) apply_row(x + at, out + at, channels, centre, factor, bias, 1);
        else apply_row(x + at, out + at, channels, centre, factor, bias, 0);
}

// Everything for one picture. `means` has room for scratch_floats(channels, 1) numbers.
static void normalise_picture(const bf16 *x, bf16 *out, const bf16 *added, const bf16 *weight, const bf16 *bias,
                              float *means, long pixels, long channels, long groups, long threads, float eps,
                              int activate) {
    long size = block_size(pixels), blocks = (pixels + size - 1) / size;
    float *spreads = means + BLOCKS * channels, *centre = spreads + BLOCKS * channels, *factor = centre + channels;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for
        for (long block = 0; block < blocks; block++) {
            long count = pixels - block * size < size ? pixels - block * size : size, at = block * channels;
            measure(x + at * size, count, channels, means + at, spreads + at);
        }
#pragma omp single
        settle(means, spreads, pixels, channels, groups, added, weight, eps, centre, factor);
#pragma omp for
        for (long block = 0; block < blocks; block++) {
            long count = pixels - block * size < size ? pixels - block * size : size, at = block * channels * size;
            apply(x + at, out + at, count, channels, centre, factor, bias, activate);
        }
    }
}

// Numbers of scratch memory that `normalise` needs.
long scratch_floats(long channels, long threads) { return (2 * BLOCKS + 2) * channels * threads; }

// out[B, P, C] = silu(norm(x[B, P, C] + added[B, 1, C])) in groups of neighbouring channels, all dense. `out` may be
// `x`, `added` may be NULL; `activate` says whether there is SiLU.
void normalise(const bf16 *x, bf16 *out, const bf16 *added, const bf16 *weight, const bf16 *bias, float *scratch,
               long batch, long pixels, long channels, long groups, long threads, float eps, int activate) {
    long numbers = pixels * channels;
    int apart = threads > 1 && batch >= threads && batch * numbers >= WORTH_WAKING;
    long together = apart || numbers < WORTH_WAITING ? 1 : threads;
#pragma omp parallel for num_threads(threads) if (apart)
    for (long row = 0; row < batch; row++)
        normalise_picture(x + row * numbers, out + row * numbers, added ? added + row * channels : 0, weight, bias,
                          scratch + (apart ? scratch_floats(channels, omp_get_thread_num()) : 0), pixels, channels,
                          groups, together, eps, activate);
}
