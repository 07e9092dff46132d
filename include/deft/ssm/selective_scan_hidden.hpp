/// \file
/// selective_scan that shows its states and takes in those of other layers, as DenseMamba needs it (arXiv:2403.00818,
/// section 3.2 and figure 1); formulas and shapes of the scan itself in selective_scan.hpp.
///
///     readout:    h_t = a h_{t-1} + phi B_t u_t                 y_t = (sum_n C_t (h_t + added_t) + D u_t) silu(z_t)
///     recurrent:  h_t = a h_{t-1} + phi B_t u_t + added_t       y_t = (sum_n C_t h_t + D u_t) silu(z_t)
///
/// added, hidden: `[B, T, D, N]`, in the type that is computed in; hidden receives h_t. Either may be absent, and
/// hidden may be added. They are N times the size of y: take tokens by chunks.
#ifndef DEFT_SSM_SELECTIVE_SCAN_HIDDEN_HPP
#define DEFT_SSM_SELECTIVE_SCAN_HIDDEN_HPP

#include <deft/kernels/selective_scan_step.hpp>
#include <deft/ssm/selective_scan.hpp>

namespace deft {

/// Where added states join: only where the state is read, or also in what is carried to the next token.
enum class fusion_point : unsigned char { readout, recurrent };

struct selective_scan_hidden_options {
    fusion_point point = fusion_point::readout;
    step_size step = step_size::softplus;
    deft::discretisation discretisation = deft::discretisation::euler;
};

inline namespace DEFT_ISA {

/// y, hidden and the new state. y may be in.u, in.delta or in.z. Throws like selective_scan, and if added or hidden do
/// not fit. The same bits for every executor.
template <class S, executor Executor = serial_executor>
void selective_scan_hidden(const selective_scan_inputs<S>& in, deft::in<compute_t<S>, 4> added, out<S, 3> y,
                           out<compute_t<S>, 4> hidden, out<compute_t<S>, 3> state,
                           const selective_scan_hidden_options& options = {}, Executor&& executor = Executor()) {
    using T = compute_t<S>;
    using arch = simd::default_arch;
    using shape = kernels::selective_scan_shape<arch, T>;
    const char* const op = "selective_scan_hidden";
    const selective_scan_options of_scan{.step = options.step, .discretisation = options.discretisation};
    detail::check_selective_scan(op, in, of_scan);
    detail::check_same_shape(op, "y", y, "u", in.u);
    detail::check_scan_state(op, "state", state, in);
    const auto check_states = [&](const char* name, const auto& v) {
        if (!v.is_given())
            return;
        detail::check_extent(op, name, v, 0, in.u.extent(0), "extent 0 of u");
        detail::check_extent(op, name, v, 1, in.u.extent(1), "extent 1 of u");
        detail::check_extent(op, name, v, 2, in.A.extent(0), "extent 0 of A");
        detail::check_extent(op, name, v, 3, in.A.extent(1), "extent 1 of A");
    };
    check_states("added", added);
    check_states("hidden", hidden);

    const index states = in.A.extent(1), tokens = in.u.extent(1);
    if (tokens == 0 || in.u.size() == 0)
        return;
    const detail::scan_blocks blocks(in.u.extent(2), in.B.extent(2), shape::channels(states));
    executor.parallel_for(in.u.extent(0) * blocks.count, 1, [&](index begin, index end) {
        for (index task = begin; task < end; ++task) {
            const index b = task / blocks.count, block = task % blocks.count, c = blocks.first(block),
                        channels = blocks.channels(block);
            const auto part = detail::scan_part(in, y, of_scan, b, 0, tokens, c, channels, blocks.group(block));
            const auto of_block = [&](const auto& v) {
                return v.is_given() ? v.data() + b * v.stride(0) + c * v.stride(2) : nullptr;
            };
            const kernels::channel_states<const T> more{of_block(added), added.stride(2), added.stride(1)};
            const kernels::channel_states<T> shown{of_block(hidden), hidden.stride(2), hidden.stride(1)};
            alignas(64) T zeros[std::size_t(shape::block_size)];
            kernels::channel_states<T> h{zeros, states, 0};
            if (state.is_given())
                h = {state.data() + b * state.stride(0) + c * state.stride(1), state.stride(1), 0};
            else
                std::fill_n(zeros, channels * states, T(0));
            if (options.point == fusion_point::readout)
                kernels::selective_scan_steps<arch, kernels::scan_extra::read>(part, h, more, shown);
            else
                kernels::selective_scan_steps<arch, kernels::scan_extra::carried>(part, h, more, shown);
        }
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif
