/// \file
/// Gradients of selective_scan, tile by tile of tokens from the last to the first, with states computed again.
#ifndef DEFT_SSM_SELECTIVE_SCAN_BACKWARD_HPP
#define DEFT_SSM_SELECTIVE_SCAN_BACKWARD_HPP

#include <deft/kernels/selective_scan_gradient.hpp>
#include <deft/ssm/selective_scan.hpp>

#include <type_traits>

namespace deft {

/// Gradients of what selective_scan reads, each of the same shape, and of the state before the first token. D, z and
/// delta_bias are given exactly where their inputs are; state always: it holds the adjoint on the way.
template <class T>
struct selective_scan_gradients {
    view<T, 3> u, delta;
    view<T, 2> A;
    view<T, 4> B, C;
    view<T, 1> D = {};
    view<T, 3> z = {};
    view<T, 1> delta_bias = {};
    view<T, 3> state;
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
void check_scan_gradients(const char* op, const selective_scan_inputs<T>& in, const selective_scan_gradients<T>& grad) {
    check_same_shape(op, "grad.u", grad.u, "u", in.u);
    check_same_shape(op, "grad.delta", grad.delta, "u", in.u);
    check_same_shape(op, "grad.A", grad.A, "A", in.A);
    check_same_shape(op, "grad.B", grad.B, "B", in.B);
    check_same_shape(op, "grad.C", grad.C, "C", in.C);
    const auto optional = [&](const char* name, const auto& gradient, const char* input_name, const auto& input) {
        check(gradient.is_given() == input.is_given(), op, name, "must be given (1) exactly where its input is",
              gradient.is_given());
        if (input.is_given())
            check_same_shape(op, name, gradient, input_name, input);
    };
    optional("grad.D", grad.D, "D", in.D);
    optional("grad.z", grad.z, "z", in.z);
    optional("grad.delta_bias", grad.delta_bias, "delta_bias", in.delta_bias);
    check_extent(op, "grad.state", grad.state, 0, in.u.extent(0), "extent 0 of u");
    check_extent(op, "grad.state", grad.state, 1, in.A.extent(0), "extent 0 of A");
    check_extent(op, "grad.state", grad.state, 2, in.A.extent(1), "extent 1 of A");
}

/// One sequence. Threads share segments of channels, which add up their parts of grad_B and grad_C tile by tile.
template <class T>
class scan_gradient_of_sequence {
public:
    using arch = simd::default_arch;
    using shape = kernels::selective_scan_shape<arch, T>;

    scan_gradient_of_sequence(const selective_scan_inputs<T>& in, const selective_scan_options& options,
                              const selective_scan_gradients<T>& grad, index b) noexcept
        : in_(in), options_(options), grad_(grad), b_(b), states_(in.A.extent(1)), tokens_(in.u.extent(1)),
          tile_(kernels::selective_scan_gradient_tokens(states_)), tiles_((tokens_ + tile_ - 1) / tile_),
          blocks_(in.u.extent(2), in.B.extent(2), shape::channels(states_)) {
        const index groups = in.B.extent(2), extra = partial_size / (2 * tile_ * states_ * groups);
        segments_ =
            std::clamp<index>(std::min({extra + 1, blocks_.in_group, most_segments / groups}), 1, most_segments);
    }

    /// The state before every tile: into rows of grad.u and grad.delta, which are not final yet; that before the last
    /// one, which may have too few rows, into grad.state.
    template <class Executor>
    void keep_states(const view<const T, 3>& state, Executor& executor) const {
        executor.parallel_for(blocks_.count, 1, [&](index begin, index end) {
            for (index block = begin; block < end; ++block) {
                kernels::selective_scan_decay<arch, T> decay;
                alignas(64) T h[std::size_t(shape::block_size)] = {};
                T sums[std::size_t(shape::most_vectors * shape::width)] = {};
                const index c = blocks_.first(block), channels = blocks_.channels(block);
                kernels::load_decay<arch>(part(block, 0), decay);
                if (state.is_given())
                    kernels::load_channel_rows<arch, T>(state.data() + b_ * state.stride(0) + c * state.stride(1),
                                                        state.stride(1), channels, states_, h);
                for (index k = 0; k + 1 < tiles_; ++k) {
                    for_each_kept(block, k, [&](T* kept, index at, auto extent) {
                        simd::store(kept, simd::load<arch>(h + at), extent);
                    });
                    kernels::selective_scan_forward<arch, false>(part(block, k), decay, h, sums);
                }
                kernels::store_channel_rows<arch, T>(h, channels, states_, state_rows(grad_.state, c),
                                                     grad_.state.stride(1));
            }
        });
    }

    template <class Executor>
    void run(const view<const T, 3>& grad_y, const view<const T, 3>& grad_last, Executor& executor) const {
        const index groups = in_.B.extent(2), part_size = tile_ * states_;
        T partial[std::size_t(partial_size)];
        for (index k = tiles_ - 1; k >= 0; --k) {
            executor.parallel_for(groups * segments_, 1, [&](index begin, index end) {
                for (index i = begin; i < end; ++i) {
                    const index g = i / segments_, s = i % segments_;
                    T* const own = s == 0 ? nullptr : partial + 2 * part_size * (g * (segments_ - 1) + s - 1);
                    for (index j = blocks_.in_group * s / segments_; j < blocks_.in_group * (s + 1) / segments_; ++j)
                        run_tile(g * blocks_.in_group + j, k, j == blocks_.in_group * s / segments_, grad_y, grad_last,
                                 own);
                }
            });
            for (index g = 0; g < groups; ++g)
                for (index s = 1; s < segments_; ++s) {
                    const T* const own = partial + 2 * part_size * (g * (segments_ - 1) + s - 1);
                    for (index t = 0; t < tokens_of(k); ++t)
                        for (index n = 0; n < states_; ++n) {
                            grad_.B(b_, k * tile_ + t, g, n) += own[t * states_ + n];
                            grad_.C(b_, k * tile_ + t, g, n) += own[part_size + t * states_ + n];
                        }
                }
        }
    }

private:
    static constexpr index partial_size = 16384, most_segments = 16;

    index tokens_of(index k) const noexcept {
        return std::min(tile_, tokens_ - k * tile_);
    }
    kernels::selective_scan_channels<T> part(index block, index k) const noexcept {
        return scan_part<T>(in_, {}, options_, b_, k * tile_, tokens_of(k), blocks_.first(block),
                            blocks_.channels(block), blocks_.group(block));
    }
    template <class V>
    auto state_rows(const V& v, index c) const noexcept {
        return v.data() + b_ * v.stride(0) + c * v.stride(1);
    }

    /// f(where a vector of the state before tile k is kept, its place in the block, full or partial).
    template <class F>
    void for_each_kept(index block, index k, F&& f) const noexcept {
        simd::for_each_vector<T, arch, 1>(blocks_.channels(block), [&](index c, auto, auto extent) {
            for (index n = 0; n < states_; ++n) {
                const view<T, 3>& v = n < tile_ ? grad_.u : grad_.delta;
                f(v.data() + b_ * v.stride(0) + (k * tile_ + n % tile_) * v.stride(1) + blocks_.first(block) + c,
                  c * states_ + n * shape::width, extent);
            }
        });
    }

    /// Tile k of a block. grad_B and grad_C go to `partial`, or if that is null to where they belong.
    void run_tile(index block, index k, bool is_first, const view<const T, 3>& grad_y,
                  const view<const T, 3>& grad_last, T* partial) const noexcept {
        const index c = blocks_.first(block), channels = blocks_.channels(block), g = blocks_.group(block);
        const auto scan = part(block, k);
        kernels::selective_scan_decay<arch, T> decay;
        alignas(64) T h[std::size_t(shape::block_size)], l[std::size_t(shape::block_size)] = {},
                                                         grad_a[std::size_t(shape::block_size)];
        kernels::load_decay<arch>(scan, decay);
        if (k + 1 == tiles_) {
            kernels::load_channel_rows<arch, T>(state_rows(grad_.state, c), grad_.state.stride(1), channels, states_,
                                                h);
            if (grad_last.is_given())
                kernels::load_channel_rows<arch, T>(state_rows(grad_last, c), grad_last.stride(1), channels, states_,
                                                    l);
        } else {
            for_each_kept(block, k, [&](const T* kept, index at, auto extent) {
                simd::store(h + at, simd::load<arch>(kept, extent));
            });
            kernels::load_channel_rows<arch, T>(state_rows(grad_.state, c), grad_.state.stride(1), channels, states_,
                                                l);
        }
        T* const a_rows = grad_.A.data() + c * grad_.A.stride(0);
        kernels::load_channel_rows<arch, T>(a_rows, grad_.A.stride(0), channels, states_, grad_a);
        const auto at = [&](const auto& v) {
            return v.is_given() ? v.data() + b_ * v.stride(0) + k * tile_ * v.stride(1) + c : nullptr;
        };
        const auto of_group = [&](const view<T, 4>& v) {
            return v.data() + b_ * v.stride(0) + k * tile_ * v.stride(1) + g * v.stride(2);
        };
        kernels::selective_scan_backward<arch, T>(
            scan,
            {at(grad_y), grad_y.stride(1), at(grad_.u), at(grad_.delta), at(grad_.z), grad_.u.stride(1),
             grad_.delta.stride(1), grad_.z.stride(1), partial == nullptr ? of_group(grad_.B) : partial,
             partial == nullptr ? of_group(grad_.C) : partial + tile_ * states_,
             partial == nullptr ? grad_.B.stride(1) : states_, partial == nullptr ? grad_.C.stride(1) : states_,
             is_first, grad_.D.is_given() ? grad_.D.data() + c : nullptr,
             grad_.delta_bias.is_given() ? grad_.delta_bias.data() + c : nullptr},
            decay, h, l, grad_a);
        kernels::store_channel_rows<arch, T>(l, channels, states_, state_rows(grad_.state, c), grad_.state.stride(1));
        kernels::store_channel_rows<arch, T>(grad_a, channels, states_, a_rows, grad_.A.stride(0));
    }

    const selective_scan_inputs<T>& in_;
    const selective_scan_options& options_;
    const selective_scan_gradients<T>& grad_;
    index b_, states_, tokens_, tile_, tiles_;
    scan_blocks blocks_;
    index segments_;
};

} // namespace detail

/// Gradients of selective_scan for the cotangents grad_y of y and grad_last of the state after the call (absent:
/// zeros); formulas in kernels/selective_scan_gradient.hpp.
///
/// in, state: inputs of the forward call, the state as it was before it (absent: zeros). Sums over tokens are in T over
/// tiles of 32 tokens (more above 64 states), and over tiles. Outputs may not overlap inputs or each other.
/// options.chunk is not used: the work is done by tiles. Throws like selective_scan. The same bits for every executor.
template <class T, executor Executor = serial_executor>
void selective_scan_backward(const selective_scan_inputs<T>& in, deft::in<T, 3> state, deft::in<T, 3> grad_y,
                             deft::in<T, 3> grad_last, const selective_scan_gradients<T>& grad,
                             const selective_scan_options& options = {}, Executor&& executor = Executor()) {
    static_assert(std::is_floating_point_v<T>, "gradients are float or double");
    const char* const op = "selective_scan_backward";
    detail::check_selective_scan(op, in, options);
    detail::check_scan_state(op, "state", state, in);
    detail::check_same_shape(op, "grad_y", grad_y, "u", in.u);
    detail::check_scan_state(op, "grad_last", grad_last, in);
    detail::check_scan_gradients(op, in, grad);
    for (index c = 0; c < grad.A.extent(0); ++c)
        std::fill_n(grad.A.data() + c * grad.A.stride(0), grad.A.extent(1), T(0));
    std::fill_n(grad.D.data(), grad.D.extent(0), T(0));
    std::fill_n(grad.delta_bias.data(), grad.delta_bias.extent(0), T(0));
    for (index b = 0; b < in.u.extent(0); ++b) {
        if (in.u.extent(2) == 0)
            for (index t = 0; t < in.u.extent(1); ++t)
                for (index g = 0; g < in.B.extent(2); ++g) {
                    std::fill_n(&grad.B(b, t, g, 0), in.A.extent(1), T(0));
                    std::fill_n(&grad.C(b, t, g, 0), in.A.extent(1), T(0));
                }
        if (in.u.extent(1) == 0) { // the state is what it was
            for (index c = 0; c < in.u.extent(2); ++c)
                for (index n = 0; n < in.A.extent(1); ++n)
                    grad.state(b, c, n) = grad_last.is_given() ? grad_last(b, c, n) : T(0);
            continue;
        }
        const detail::scan_gradient_of_sequence<T> sequence(in, options, grad, b);
        sequence.keep_states(state, executor);
        sequence.run(grad_y, grad_last, executor);
    }
}

} // namespace DEFT_ISA
} // namespace deft

#endif
