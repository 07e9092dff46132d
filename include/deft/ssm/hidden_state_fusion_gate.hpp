/// \file
/// The selective transition of hidden_state_fusion for a block of rows: gates and projected states, tile by tile.
#ifndef DEFT_SSM_HIDDEN_STATE_FUSION_GATE_HPP
#define DEFT_SSM_HIDDEN_STATE_FUSION_GATE_HPP

#include <deft/activation_kind.hpp>
#include <deft/kernels/state_fusion.hpp>
#include <deft/kernels/tile_product.hpp>
#include <deft/view.hpp>

#include <algorithm>

namespace deft {

/// What hidden_state_fusion reads; what has a default may be absent.
template <class T>
struct hidden_state_fusion_inputs {
    view<const T, 2> current, x;
    view<const T, 3> past;
    view<const T, 2> w1, w2;
    view<const T, 3> proj = {};
    view<const T, 1> norm_weight = {};
};

enum class fusion_norm : unsigned char { rms, none };

struct hidden_state_fusion_options {
    activation gate = activation::silu; ///< silu, sigmoid or identity
    index gate_group = 1;               ///< neighbouring channels that share a gate
    fusion_norm norm = fusion_norm::rms;
    double eps = 1e-6; ///< of the norm
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
class fusion_gate {
public:
    using arch = simd::default_arch;
    using shape = kernels::tile_shape<arch, T>;
    using factor = kernels::strided_matrix<const T>;

    const hidden_state_fusion_inputs<T>& in;
    const hidden_state_fusion_options& options;

    index width() const noexcept {
        return in.current.extent(1);
    }
    index middle() const noexcept {
        return in.w1.extent(0);
    }
    index gates() const noexcept {
        return in.w2.extent(0);
    }
    index past() const noexcept {
        return in.past.extent(0);
    }
    factor to_gates() const noexcept {
        return factor{in.w2.data(), in.w2.stride(0), 1}.transposed();
    }
    /// Hidden units at a time: what fits a tile beside the rows.
    index chunk() const noexcept {
        constexpr index most = shape::tile_size / shape::kernel_rows / shape::panel_columns * shape::panel_columns;
        return std::min(middle(), most);
    }
    index chunks() const noexcept {
        return middle() == 0 ? 1 : (middle() + chunk() - 1) / chunk();
    }
    /// Whether gates go from the product straight into the sum: one for each channel, of hidden units that are there at
    /// once, on states as they are.
    bool is_direct() const noexcept {
        return options.gate_group == 1 && !in.proj.is_given() && middle() > 0 && chunks() == 1;
    }
    /// Rows of a block: their f stays in the second cache until its norm is known, and a tile of their gates holds long
    /// pieces of each.
    index block_rows() const noexcept {
        constexpr index step = shape::kernel_rows, in_cache = 393216 / index(sizeof(T)), most = 48;
        const index fit = std::min(shape::tile_size / std::max<index>(shape::padded(chunk()), 1),
                                   in_cache / std::max<index>(width(), 1));
        return std::clamp(fit / step * step, step, most);
    }
    index stride_of_hidden() const noexcept {
        return shape::padded(chunk());
    }

    /// u = x w1^T, hidden units [first, first + count) of rows [r, r + rows), and h = silu(u).
    void hidden(index r, index rows, index first, index count, T* u, T* h) const noexcept {
        const index stride = stride_of_hidden();
        kernels::tile_product<arch, T>({in.x.data() + r * in.x.stride(0), in.x.stride(0), 1},
                                       factor{in.w1.data(), in.w1.stride(0), 1}.at(first, 0).transposed(), rows, count,
                                       in.x.extent(1), false, u, stride);
        for (index i = 0; i < rows; ++i)
            kernels::gate_values<arch, T>(activation::silu, u + i * stride, h + i * stride, count);
    }

    /// Gates before their activation, [k, k + count) of the same rows, into a tile. h holds the units of part `held`;
    /// if they are in several parts, it holds the last one in the end.
    void gate_tile(index r, index rows, index k, index count, T* h, index& held, T* tile, index stride) const noexcept {
        for (index p = 0; p < chunks(); ++p) {
            const index first = p * chunk(), units = std::min(chunk(), middle() - first);
            if (held != p)
                hidden(r, rows, first, units, h, h);
            held = p;
            kernels::tile_product<arch, T>({h, stride_of_hidden(), 1}, to_gates().at(first, k), rows, count, units,
                                           p > 0, tile, stride);
        }
    }

    /// sum_i P_i p_i, channels [c, c + count), into a tile.
    void projected_tile(index r, index rows, index c, index count, T* tile, index stride) const noexcept {
        for (index i = 0; i < past(); ++i)
            kernels::tile_product<arch, T>(
                {in.past.data() + i * in.past.stride(0) + r * in.past.stride(1), in.past.stride(1), 1},
                factor{in.proj.data() + i * in.proj.stride(0) + c * in.proj.stride(1), in.proj.stride(1), 1}
                    .transposed(),
                rows, count, in.past.extent(2), i > 0, tile, stride);
    }

    /// Past states of row r from channel c on, or the row of a tile that holds their projections.
    kernels::past_rows<const T> past_at(index r, index c, const T* projected) const noexcept {
        if (in.proj.is_given())
            return {projected, 0, 1};
        return {in.past.data() + r * in.past.stride(1) + c, in.past.stride(0), past()};
    }

    /// Channels of a piece: those of a tile of projections, or as many as the expanded gates have room for.
    static constexpr index piece = 512;
    index piece_channels(index tile_columns) const noexcept {
        return in.proj.is_given() ? std::min(piece, tile_columns) : piece;
    }
    /// f(gate, begin, end) for the channels [at, at + count) behind that of gate 0, those of a gate together and
    /// counted from `at`.
    template <class F>
    DEFT_ALWAYS_INLINE void for_each_gate(index at, index count, F&& f) const noexcept {
        index gate = at / options.gate_group, end = (gate + 1) * options.gate_group - at;
        for (index begin = 0; begin < count; begin = end, end += options.gate_group, ++gate)
            f(gate, begin, std::min(end, count));
    }
    /// The gates of channels [c, c + count), each repeated for its group; `gate` is that of channel `first`.
    const T* expand(const T* gate, index first, index c, index count, T* room) const noexcept {
        if (options.gate_group == 1)
            return gate + (c - first);
        for_each_gate(c - first, count, [&](index g, index begin, index end) DEFT_INLINE_LAMBDA {
            const simd::batch<T, arch> value(gate[g]);
            simd::for_each_vector<T, arch, 1>(end - begin, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
                simd::store(room + begin + i, value, extent);
            });
        });
        return room;
    }
};

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif
