// Fused element-wise kernels for a frozen T5 on a CPU; see kernels.py, which compiles this file with T, the type of the
// tensors' numbers, defined as float or bfloat16.
//
// Each reads its inputs once, computes in float32 whatever the tensors hold, and rounds once when it writes. A row is
// computed by one thread, so results do not depend on the number of threads. All tensors are contiguous.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

struct bfloat16 {
  uint16_t bits;
};

static inline float load(float x) { return x; }
static inline float load(bfloat16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline void store(float *out, float x) { *out = x; }
static inline void store(bfloat16 *out, float x) {  // to nearest, ties to even
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  out->bits = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e to the x, to float32's precision; without a call, so that loops over it become vector instructions. Cephes' method:
// x = n ln 2 + r with |r| <= ln 2 / 2, and a polynomial for e to the r. NaN stays NaN.
static inline float exponential(float x) {
  x = x < -87.3f ? -87.3f : x;
  x = x > 88.0f ? 88.0f : x;
  float n = __builtin_rintf(x * 1.44269504f);
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits = (int32_t(n) + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}

extern "C" {

// scores (batch, heads, queries, keys) -> softmax over keys of scores + bias, in place.
// bias (heads, queries, keys); allowed (batch, keys): keys that may be attended to.
void softmax(T *scores, const T *bias, const uint8_t *allowed, int64_t batch, int64_t heads, int64_t queries,
             int64_t keys, int threads) {
  const float lowest = -3.0e38f;
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> buffer(keys);
    float *row = buffer.data();
#pragma omp for
    for (int64_t i = 0; i < batch * heads * queries; i++) {
      T *s = scores + i * keys;
      const T *b = bias + i % (heads * queries) * keys;
      const uint8_t *a = allowed + i / (heads * queries) * keys;
      float highest = lowest, sum = 0;
#pragma omp simd reduction(max : highest)
      for (int64_t j = 0; j < keys; j++) {
        float x = load(s[j]) + load(b[j]);
        row[j] = x = a[j] ? x : lowest;
        highest = x > highest ? x : highest;
      }
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < keys; j++) sum += row[j] = exponential(row[j] - highest);
      float scale = 1 / sum;
#pragma omp simd
      for (int64_t j = 0; j < keys; j++) store(s + j, row[j] * scale);
    }
  }
}

// probabilities, gradient (rows, keys) -> gradient of the scores, in place of `gradient`.
void softmax_backward(const T *probabilities, T *gradient, int64_t rows, int64_t keys, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < rows; i++) {
    const T *p = probabilities + i * keys;
    T *g = gradient + i * keys;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < keys; j++) sum += load(p[j]) * load(g[j]);
#pragma omp simd
    for (int64_t j = 0; j < keys; j++) store(g + j, load(p[j]) * (load(g[j]) - sum));
  }
}

// gelu(x) = x sigmoid(u(x)) in the tanh approximation, u(x) = 2 sqrt(2/pi) (x + 0.044715 x^3).
static const float SLOPE = 1.5957691216057308f, CUBIC = 0.044715f;

// gate, linear (size) -> out = gelu(gate) * linear.
void gated_gelu(const T *gate, const T *linear, T *out, int64_t size, int threads) {
#pragma omp parallel for simd num_threads(threads)
  for (int64_t i = 0; i < size; i++) {
    float x = load(gate[i]);
    float u = SLOPE * x * (1 + CUBIC * x * x);
    store(out + i, x / (1 + exponential(-u)) * load(linear[i]));
  }
}

void gated_gelu_backward(const T *gate, const T *linear, const T *gradient, T *gate_gradient, T *linear_gradient,
                         int64_t size, int threads) {
#pragma omp parallel for simd num_threads(threads)
  for (int64_t i = 0; i < size; i++) {
    float x = load(gate[i]), g = load(gradient[i]);
    float u = SLOPE * x * (1 + CUBIC * x * x), slope = SLOPE * (1 + 3 * CUBIC * x * x);
    float sigmoid = 1 / (1 + exponential(-u));
    store(linear_gradient + i, g * x * sigmoid);
    store(gate_gradient + i, g * load(linear[i]) * sigmoid * (1 + x * (1 - sigmoid) * slope));
  }
}

// x (rows, width), weight (width) -> out = x * scale * weight with scale (rows) = 1 / sqrt(mean of x^2 + epsilon).
void rms_norm(const T *x, const T *weight, T *out, float *scale, int64_t rows, int64_t width, float epsilon,
              int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < rows; i++) {
    const T *row = x + i * width;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < width; j++) sum += load(row[j]) * load(row[j]);
    float r = scale[i] = 1 / std::sqrt(sum / width + epsilon);
#pragma omp simd
    for (int64_t j = 0; j < width; j++) store(out + i * width + j, load(row[j]) * r * load(weight[j]));
  }
}

void rms_norm_backward(const T *x, const T *weight, const float *scale, const T *gradient, T *out, int64_t rows,
                       int64_t width, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < rows; i++) {
    const T *row = x + i * width, *g = gradient + i * width;
    float r = scale[i], dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t j = 0; j < width; j++) dot += load(row[j]) * load(weight[j]) * load(g[j]);
    float shrink = dot * r * r / width;
#pragma omp simd
    for (int64_t j = 0; j < width; j++)
      store(out + i * width + j, r * (load(weight[j]) * load(g[j]) - load(row[j]) * shrink));
  }
}

}  // extern "C"
