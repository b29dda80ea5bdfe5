// Winograd convolutions of 3 x 3 (x 3 in time) for clips whose channels lie last, in float32.
//
//     y = A^T [ sum_C (G g G^T) * (B^T d B) ] A        F(4, 3) along rows and columns,
//                                                      F(2, 3) along time where frames come in pairs
//
// 36 products for 16 outputs instead of 144, and with time 144 for 32 instead of 864 (A. Lavin, S. Gray, 2016,
// https://arxiv.org/abs/1509.09308). The points are 0, +-sqrt(1/2), +-sqrt(2) and infinity: half the rounding
// error of the usual 0, +-1, +-2.
//
// Work is cut into strips of tiles whose transformed values stay in the cache; threads take strips. Every
// output is the same sum in the same order however strips, chunks and threads are cut.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 14;  // 28 sums in 32 registers
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 6;  // 12 sums in 16 registers
#else
constexpr int LANES = 4, ROWS = 8;  // 16 sums; NEON has 32 registers
#endif
constexpr int64_t SCRATCH = 2 << 20;  // bytes of transformed values that a strip may hold beyond four blocks of rows
constexpr int POINTS = 36;

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t veci __attribute__((vector_size(LANES * sizeof(float))));

inline vec load(const float* p) { vec v; std::memcpy(&v, p, sizeof v); return v; }
inline void store(float* p, vec v) { std::memcpy(p, &v, sizeof v); }
inline vec splat(float x) { return vec{} + x; }

inline vec load_some(const float* p, int64_t n) {
    if (n >= LANES) return load(p);
    vec v{};
    std::memcpy(&v, p, n * sizeof(float));
    return v;
}

inline void store_some(float* p, vec v, int64_t n) {
    if (n >= LANES) store(p, v);
    else std::memcpy(p, &v, n * sizeof(float));
}

constexpr float A1 = 0.70710678118654752f, A2 = 0.5f, B1 = 1.41421356237309505f, B2 = 2.0f, AB = 2.5f;

// B^T along one axis: six inputs to six points.
inline void to_points(const vec* d, int64_t step, vec* t, int64_t out) {
    const vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    const vec even_a = d4 - B2 * d2, odd_a = A1 * (d3 - B2 * d1);
    const vec even_b = d4 - A2 * d2, odd_b = B1 * (d3 - A2 * d1);
    t[0] = d0 - AB * d2 + d4;
    t[out] = even_a + odd_a;
    t[2 * out] = even_a - odd_a;
    t[3 * out] = even_b + odd_b;
    t[4 * out] = even_b - odd_b;
    t[5 * out] = d1 - AB * d3 + d5;
}

// A^T along one axis: six points to four outputs.
inline void from_points(const vec* m, int64_t step, vec* o, int64_t out) {
    const vec sum_a = m[step] + m[2 * step], diff_a = A1 * (m[step] - m[2 * step]);
    const vec sum_b = m[3 * step] + m[4 * step], diff_b = B1 * (m[3 * step] - m[4 * step]);
    o[0] = m[0] + sum_a + sum_b;
    o[out] = diff_a + diff_b;
    o[2 * out] = A2 * sum_a + B2 * sum_b;
    o[3 * out] = A2 * diff_a + B2 * diff_b + m[5 * step];
}

struct Plane {  // one clip's convolution, as the Python side fills it (see kinema.models.winograd)
    const float* const* inputs;   // frames [Y, X, C]; null for zeros; `frames + taps - 1` of them
    const float* weight;          // transformed and packed by kinema_pack
    const float* bias;            // [K] or null
    const float* residual;        // [F, Y, X, K] or null
    float* output;                // [F, Y, X, K]
    int64_t frames, rows, columns, channels, outputs;
    int64_t taps;                 // how many of the weight's taps in time count, from the last: 3 or 1
    int64_t weight_taps;          // how many the packed weight has
    int64_t paired;               // F(2, 3) in time
    int64_t doubled;              // inputs are half as high and wide and read twice (nearest neighbour)
    int64_t threads;
};

int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Numbers of one point's packed weights. The odd line keeps the points from meeting in the same cache lines.
int64_t weight_area(int64_t panels, int64_t depth) { return (panels * depth + 1) * LANES; }

struct Shape {  // of a strip
    int64_t tiles_x, tiles, strip, groups, slots, depth, times, row, area_in, area_out, padded;

    explicit Shape(const Plane& p) {
        tiles_x = up(p.columns, 4) / 4;
        tiles = tiles_x * (up(p.rows, 4) / 4);
        padded = up(p.outputs, LANES);
        groups = p.paired ? 1 : p.frames;                       // products of one strip, for each point
        times = p.paired ? 4 : 1;                               // points along time
        slots = p.paired ? p.frames / 2 : p.frames + p.taps - 1;  // rows of C numbers of one tile
        depth = p.paired ? p.channels : p.taps * p.channels;    // length of the sums
        row = p.paired ? p.channels : slots * p.channels;       // between neighbouring rows of a product
        const int64_t each = times * POINTS * sizeof(float) * (slots * p.channels + outputs_each(p) * padded);
        const int64_t rows = p.paired ? slots : 1;                 // of one tile in a product
        const int64_t whole = up(std::max<int64_t>(SCRATCH / each * rows, 4 * ROWS), ROWS);
        const int64_t wanted = (whole + rows - 1) / rows;
        const int64_t share = (tiles + p.threads - 1) / p.threads;
        const int64_t most = std::max<int64_t>(1, std::min(wanted, share));
        strip = std::min(tiles, most);
        // The odd 16 floats keep the points' areas from falling on the same lines of the cache.
        area_in = up(products_rows(p), 2) * row + 16;
        area_out = up(products_rows(p), 2) * padded + 16;
    }

    int64_t outputs_each(const Plane& p) const { return p.paired ? p.frames / 2 : p.frames; }
    int64_t products_rows(const Plane& p) const { return p.paired ? strip * slots : strip; }
};

// Where the 36 inputs of a tile lie within a frame; -1 outside of it.
struct Window {
    int64_t at[POINTS];
    bool inside;

    Window(const Plane& p, int64_t top, int64_t left) {
        const int64_t columns = p.doubled ? p.columns / 2 : p.columns;
        inside = top > 0 && left > 0 && top + 5 <= p.rows && left + 5 <= p.columns;
        for (int i = 0; i < POINTS; i++) {
            const int64_t y = top + i / 6 - 1, x = left + i % 6 - 1;
            const bool here = y >= 0 && y < p.rows && x >= 0 && x < p.columns;
            at[i] = here ? ((p.doubled ? y >> 1 : y) * columns + (p.doubled ? x >> 1 : x)) * p.channels : -1;
        }
    }
};

// Spatial points of every input frame of one tile, `LANES` channels at once: found[frame][point].
void transform_frames(const Plane& p, const Window& window, int64_t c, vec* found) {
    const int64_t some = p.channels - c, count = p.frames + p.taps - 1;
    for (int64_t f = 0; f < count; f++, found += POINTS) {
        vec d[POINTS], half[POINTS];
        if (!p.inputs[f]) {
            std::fill(found, found + POINTS, vec{});
            continue;
        }
        const float* frame = p.inputs[f] + c;
        if (window.inside && some >= LANES)
            for (int i = 0; i < POINTS; i++) d[i] = load(frame + window.at[i]);
        else
            for (int i = 0; i < POINTS; i++)
                d[i] = window.at[i] < 0 ? vec{} : load_some(frame + window.at[i], some);
        for (int j = 0; j < 6; j++) to_points(d + j, 6, half + j, 6);
        for (int i = 0; i < 6; i++) to_points(half + 6 * i, 1, found + 6 * i, 1);
    }
}

void transform_tile(const Plane& p, const Shape& s, int64_t tile, int64_t place, vec* found, float* area) {
    const Window window(p, 4 * (tile / s.tiles_x), 4 * (tile % s.tiles_x));
    for (int64_t c = 0; c < p.channels; c += LANES) {
        const int64_t some = p.channels - c;
        transform_frames(p, window, c, found);
        float* to = area + place * s.slots * p.channels + c;
        for (int64_t slot = 0; slot < s.slots; slot++, to += p.channels) {
            if (!p.paired) {
                const vec* d = found + slot * POINTS;
                for (int i = 0; i < POINTS; i++) store_some(to + i * s.area_in, d[i], some);
                continue;
            }
            const vec* d = found + 2 * slot * POINTS;
            for (int i = 0; i < POINTS; i++) {
                const vec d0 = d[i], d1 = d[i + POINTS], d2 = d[i + 2 * POINTS], d3 = d[i + 3 * POINTS];
                store_some(to + i * s.area_in, d0 - d2, some);
                store_some(to + (POINTS + i) * s.area_in, d1 + d2, some);
                store_some(to + (2 * POINTS + i) * s.area_in, d2 - d1, some);
                store_some(to + (3 * POINTS + i) * s.area_in, d1 - d3, some);
            }
        }
    }
}

// `R` rows of x times panels of LANES columns each.
template <int R, int PANELS>
void block(const float* x, int64_t row, const float* w, int64_t panel, int64_t depth, float* y, int64_t out) {
    vec sum[R][PANELS] = {};
    for (int64_t k = 0; k < depth; k++) {
        vec column[PANELS];
#pragma GCC unroll 4
        for (int n = 0; n < PANELS; n++) column[n] = load(w + n * panel + k * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < R; i++) {
            const vec value = splat(x[i * row + k]);
#pragma GCC unroll 4
            for (int n = 0; n < PANELS; n++) sum[i][n] += value * column[n];
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; i++)
#pragma GCC unroll 4
        for (int n = 0; n < PANELS; n++) store(y + i * out + n * LANES, sum[i][n]);
}

typedef void Block(const float*, int64_t, const float*, int64_t, int64_t, float*, int64_t);

template <int PANELS>
Block* block_of(int64_t rows) {  // rows are even and at most ROWS
    static Block* const blocks[] = {block<2, PANELS>, block<4, PANELS>, block<6, PANELS>,
#if defined(__AVX512F__) || !defined(__AVX__)
                                    block<8, PANELS>,
#endif
#if defined(__AVX512F__)
                                    block<10, PANELS>, block<12, PANELS>, block<14, PANELS>,
#endif
    };
    return blocks[rows / 2 - 1];
}

// All rows of x times two panels or one, in blocks of nearly the same number of rows.
void product(const float* x, int64_t rows, int64_t row, const float* w, int64_t panel, bool two, int64_t depth, float* y, int64_t out) {
    const int64_t blocks = (rows + ROWS - 1) / ROWS, most = up((rows + blocks - 1) / blocks, 2);
    for (int64_t r = 0; r < rows; r += most) {
        const int64_t now = std::min(most, up(rows - r, 2));
        (two ? block_of<2>(now) : block_of<1>(now))(x + r * row, row, w, panel, depth, y + r * out, out);
    }
}

void multiply(const Plane& p, const Shape& s, int64_t rows, const float* in, float* out) {
    const int64_t whole = p.paired ? p.channels : p.weight_taps * p.channels;
    const int64_t panel = whole * LANES, skipped = (whole - s.depth) * LANES;
    const int64_t area = weight_area(s.padded / LANES, whole);
    for (int64_t point = 0; point < s.times * POINTS; point++)
        for (int64_t k = 0; k < s.padded; k += 2 * LANES) {
            const float* w = p.weight + point * area + k / LANES * panel + skipped;
            const bool two = k + 2 * LANES <= s.padded;
            for (int64_t g = 0; g < s.groups; g++) {
                const float* x = in + point * s.area_in + g * p.channels;
                float* y = out + (g * s.times * POINTS + point) * s.area_out + k;
                product(x, rows, s.row, w, panel, two, s.depth, y, s.padded);
            }
        }
}

void write_frame(const Plane& p, const vec* m, int64_t frame, int64_t top, int64_t left, int64_t k) {
    vec half[24], o[16];
    for (int j = 0; j < 6; j++) from_points(m + j, 6, half + j, 6);
    for (int i = 0; i < 4; i++) from_points(half + 6 * i, 1, o + 4 * i, 1);
    const int64_t some = p.outputs - k;
    const vec bias = p.bias ? load_some(p.bias + k, some) : vec{};
    const int64_t bottom = std::min<int64_t>(4, p.rows - top), right = std::min<int64_t>(4, p.columns - left);
    for (int64_t i = 0; i < bottom; i++)
        for (int64_t j = 0; j < right; j++) {
            const int64_t at = ((frame * p.rows + top + i) * p.columns + left + j) * p.outputs + k;
            vec y = o[4 * i + j] + bias;
            if (p.residual) y += load_some(p.residual + at, some);
            store_some(p.output + at, y, some);
        }
}

void write_tile(const Plane& p, const Shape& s, int64_t tile, int64_t place, const float* area) {
    const int64_t top = 4 * (tile / s.tiles_x), left = 4 * (tile % s.tiles_x);
    vec m[POINTS], later[POINTS];
    for (int64_t k = 0; k < p.outputs; k += LANES)
        for (int64_t n = 0; n < (p.paired ? s.slots : p.frames); n++) {
            if (!p.paired) {
                const float* from = area + n * POINTS * s.area_out + place * s.padded + k;
                for (int i = 0; i < POINTS; i++) m[i] = load(from + i * s.area_out);
                write_frame(p, m, n, top, left, k);
                continue;
            }
            const float* from = area + (place * s.slots + n) * s.padded + k;
            for (int i = 0; i < POINTS; i++) {
                const float* at = from + i * s.area_out;
                const int64_t next = POINTS * s.area_out;
                const vec m1 = load(at + next), m2 = load(at + 2 * next);
                m[i] = load(at) + m1 + m2;
                later[i] = m1 - m2 - load(at + 3 * next);
            }
            write_frame(p, m, 2 * n, top, left, k);
            write_frame(p, later, 2 * n + 1, top, left, k);
        }
}

// Large areas in large pages: a strip writes to 144 places at once, more than the processor remembers small
// pages for.
void in_large_pages(void* p, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t page = 2 << 20, first = (uintptr_t(p) + page - 1) / page * page;
    if (first + page <= uintptr_t(p) + bytes)
        madvise(reinterpret_cast<void*>(first), (uintptr_t(p) + bytes - first) / page * page, MADV_HUGEPAGE);
#else
    (void)p, (void)bytes;
#endif
}

struct Freed {
    void operator()(void* p) const { ::operator delete(p, std::align_val_t(64)); }
};

// Memory that is kept from one convolution to the next: fresh pages cost as much as the work on them.
struct Scratch {
    std::unique_ptr<float, Freed> memory;
    int64_t size = 0;

    float* of(int64_t count) {
        if (count > size) {
            memory.reset();
            size = 0;
            memory.reset(static_cast<float*>(
                ::operator new(count * sizeof(float), std::align_val_t(64), std::nothrow)));
            if (!memory) return nullptr;
            in_large_pages(memory.get(), count * sizeof(float));
            size = count;
        }
        return memory.get();
    }
};

std::mutex shelf_lock;
std::vector<Scratch> shelf;

Scratch take() {
    const std::lock_guard<std::mutex> held(shelf_lock);
    if (shelf.empty()) return {};
    Scratch found = std::move(shelf.back());
    shelf.pop_back();
    return found;
}

void put_back(Scratch scratch) {
    const std::lock_guard<std::mutex> held(shelf_lock);
    shelf.push_back(std::move(scratch));
}

void strips(const Plane& p, const Shape& s, std::atomic<int64_t>& next, std::atomic<bool>& failed) {
    const int64_t in = s.times * POINTS * s.area_in, out = s.groups * s.times * POINTS * s.area_out;
    Scratch scratch = take();
    float* const found = scratch.of(up((p.frames + p.taps - 1) * POINTS * LANES, 16) + in + out);
    if (!found) { failed = true; return; }
    float* const input = found + up((p.frames + p.taps - 1) * POINTS * LANES, 16);
    float* const output = input + in;
    for (int64_t first; (first = next.fetch_add(s.strip)) < s.tiles;) {
        const int64_t count = std::min(s.strip, s.tiles - first);
        for (int64_t t = 0; t < count; t++)
            transform_tile(p, s, first + t, t, reinterpret_cast<vec*>(found), input);
        multiply(p, s, p.paired ? count * s.slots : count, input, output);
        for (int64_t t = 0; t < count; t++) write_tile(p, s, first + t, t, output);
    }
    put_back(std::move(scratch));
}

template <class Work>
void in_parallel(int64_t threads, const Work& work) {
    std::vector<std::thread> others;
    try {
        for (int64_t i = 1; i < threads; i++) others.emplace_back(work);
    } catch (...) {  // the system gives no more threads: those there are do all the work
    }
    work();
    for (auto& other : others) other.join();
}

// exp on [-87, 88] within 2 units of the last place; NaN stays NaN.
inline vec exponential(vec x) {
    x = x > 88.0f ? splat(88.0f) : x;
    x = x < -87.0f ? splat(-87.0f) : x;
    const vec magic = splat(12582912.0f);
    const vec shifted = x * 1.44269504088896341f + magic, n = shifted - magic;
    const vec r = x - n * 0.693359375f - n * -2.12194440e-4f;
    vec e = splat(1.9875691500e-4f);
    e = e * r + 1.3981999507e-3f;
    e = e * r + 8.3334519073e-3f;
    e = e * r + 4.1665795894e-2f;
    e = e * r + 1.6666665459e-1f;
    e = e * r + 5.0000001201e-1f;
    e = e * r * r + r + 1.0f;
    return (vec)((veci)e + ((veci)shifted << 23));
}

// `silu(gain * x / max(|x|, tiny))` of one position.
void activate_position(const float* x, float* y, const float* gain, int64_t channels, float tiny) {
    vec squares{};
    for (int64_t c = 0; c < channels; c += LANES) {
        const vec v = load_some(x + c, channels - c);
        squares += v * v;
    }
    float total = 0;
    for (int i = 0; i < LANES; i++) total += squares[i];
    const float norm = __builtin_sqrtf(total), scale = 1.0f / (norm < tiny ? tiny : norm);
    for (int64_t c = 0; c < channels; c += LANES) {
        const int64_t some = channels - c;
        const vec v = load_some(x + c, some) * scale * load_some(gain + c, some);
        store_some(y + c, v / (1.0f + exponential(-v)), some);
    }
}

typedef double wide __attribute__((vector_size(LANES * sizeof(double))));

// G along one axis: three weights to six points.
inline void weight_points(const wide* g, int64_t step, wide* u, int64_t out) {
    constexpr double a = 0.70710678118654752440, b = 1.41421356237309504880;
    constexpr double near = -1.0 / 1.5, far = 1.0 / 6.0;  // 1 / (2 a^2 (a^2 - b^2)), 1 / (2 b^2 (b^2 - a^2))
    const wide g0 = g[0], g1 = g[step], g2 = g[2 * step];
    u[0] = g0;
    u[out] = near * (g0 + a * g1 + 0.5 * g2);
    u[2 * out] = near * (g0 - a * g1 + 0.5 * g2);
    u[3 * out] = far * (g0 + b * g1 + 2.0 * g2);
    u[4 * out] = far * (g0 - b * g1 + 2.0 * g2);
    u[5 * out] = g2;
}

// The weights `[taps, 3, 3]` of LANES outputs and one input channel at all points: `u[taps][POINTS]`.
void weight_at_points(const float* w, int64_t step, int64_t lanes, int64_t taps, wide* u) {
    for (int64_t t = 0; t < taps; t++) {
        wide g[9] = {}, half[18];
        for (int64_t lane = 0; lane < lanes; lane++)
            for (int i = 0; i < 9; i++) g[i][lane] = w[lane * step + 9 * t + i];
        for (int j = 0; j < 3; j++) weight_points(g + j, 3, half + j, 3);
        for (int i = 0; i < 6; i++) weight_points(half + 3 * i, 1, u + t * POINTS + 6 * i, 1);
    }
}

inline void store_weights(float* to, const wide& u) { store(to, __builtin_convertvector(u, vec)); }

}  // namespace

extern "C" {

int64_t kinema_packed_size(int64_t outputs, int64_t channels, int64_t taps, int64_t paired) {
    const int64_t depth = paired ? channels : taps * channels;
    return (paired ? 4 : 1) * POINTS * weight_area(up(outputs, LANES) / LANES, depth);
}

// `weight [K, C, taps, 3, 3]` to `packed [points, K / LANES, depth, LANES]`; depth is C, or (tap, C) unpaired.
void kinema_pack(const float* weight, float* packed, int64_t outputs, int64_t channels, int64_t taps, int64_t paired) {
    const int64_t panels = up(outputs, LANES) / LANES, depth = paired ? channels : taps * channels;
    const int64_t area = weight_area(panels, depth), step = channels * taps * 9;
    in_large_pages(packed, (paired ? 4 : 1) * POINTS * area * sizeof(float));
    for (int64_t k = 0; k < outputs; k += LANES)
        for (int64_t c = 0; c < channels; c++) {
            wide u[3 * POINTS];
            const int64_t lanes = std::min<int64_t>(LANES, outputs - k);
            weight_at_points(weight + k * step + c * taps * 9, step, lanes, taps, u);
            float* to = packed + k * depth + c * LANES;
            for (int i = 0; i < POINTS; i++, to += area) {
                if (!paired) {
                    for (int64_t t = 0; t < taps; t++) store_weights(to + t * channels * LANES, u[t * POINTS + i]);
                    continue;
                }
                const wide g0 = u[i], g1 = u[POINTS + i], g2 = u[2 * POINTS + i];
                store_weights(to, g0);
                store_weights(to + POINTS * area, (g0 + g1 + g2) / 2.0);
                store_weights(to + 2 * POINTS * area, (g0 - g1 + g2) / 2.0);
                store_weights(to + 3 * POINTS * area, g2);
            }
        }
}

// 0, or 1 when there is not enough memory for the scratch of a strip.
int kinema_convolve(const Plane* plane) {
    const Shape shape(*plane);
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    const int64_t threads = std::min(plane->threads, (shape.tiles + shape.strip - 1) / shape.strip);
    in_parallel(threads, [&] { strips(*plane, shape, next, failed); });
    return failed;
}

void kinema_activate(const float* x, float* y, const float* gain, int64_t positions, int64_t channels, float tiny, int64_t threads) {
    constexpr int64_t BLOCK = 1024;
    std::atomic<int64_t> next{0};
    in_parallel(std::min(threads, (positions + BLOCK - 1) / BLOCK), [&] {
        for (int64_t first; (first = next.fetch_add(BLOCK)) < positions;)
            for (int64_t i = first; i < std::min(first + BLOCK, positions); i++)
                activate_position(x + i * channels, y + i * channels, gain, channels, tiny);
    });
}
}
