/// \file
/// Naive reference of augmented_shortcut_circulant: the dense weights written out, then augmented_shortcut.
#ifndef DEFT_REFERENCE_SHORTCUT_AUGMENTED_SHORTCUT_CIRCULANT_HPP
#define DEFT_REFERENCE_SHORTCUT_AUGMENTED_SHORTCUT_CIRCULANT_HPP

#include <deft/reference/shortcut/augmented_shortcut.hpp>
#include <deft/reference/shortcut/block_circulant_linear.hpp>
#include <deft/view.hpp>

#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

template <class E>
view<E, 3> generators_of(const view<E, 4>& c, index path) {
    return {
        c.data() + path * c.stride(0), {c.extent(1), c.extent(2), c.extent(3)}, {c.stride(1), c.stride(2), index{1}}};
}

/// theta [T, d, d], each [in, out], of generators c [T, p, p, m].
template <class T>
std::vector<T> dense_weights(in<T, 4> c, index d) {
    std::vector<T> theta;
    for (index i = 0; i < c.extent(0); ++i)
        for (index j = 0; j < d; ++j)
            for (index o = 0; o < d; ++o)
                theta.push_back(circulant_entry(generators_of(c, i), o, j));
    return theta;
}

/// z, main, y are [M, d]; c is [T, p, p, m]; bias is [T, d] or absent.
template <class T>
void augmented_shortcut_circulant(in<T, 2> z, in<T, 2> main, in<T, 4> c, in<T, 2> bias, view<T, 2> y,
                                  const shortcut_of<T>& s) {
    const index d = z.extent(1);
    const std::vector<T> theta = dense_weights<T>(c, d);
    augmented_shortcut<T>(z, main, {theta.data(), {c.extent(0), d, d}}, bias, y, s);
}

template <class T>
void augmented_shortcut_circulant_backward(in<T, 2> z, in<T, 4> c, in<T, 2> bias, in<T, 2> grad_y, view<T, 2> grad_z,
                                           out<T, 2> grad_main, out<T, 4> grad_c, out<T, 2> grad_bias,
                                           out<T, 2> grad_residual, bool residual_is_z, const shortcut_of<T>& s) {
    const index d = z.extent(1), paths = c.extent(0);
    const std::vector<T> theta = dense_weights<T>(c, d);
    std::vector<T> grad_theta(theta.size());
    augmented_shortcut_backward<T>(z, {theta.data(), {paths, d, d}}, bias, grad_y, grad_z, grad_main,
                                   {grad_theta.data(), {paths, d, d}}, grad_bias, grad_residual, residual_is_z, s);
    for (index i = 0; i < paths; ++i) {
        const view<T, 3> to = generators_of(grad_c, i);
        for (index p = 0; p < to.extent(0); ++p)
            for (index q = 0; q < to.extent(1); ++q)
                for (index k = 0; k < to.extent(2); ++k)
                    to(p, q, k) = 0;
        for (index j = 0; j < d; ++j)
            for (index o = 0; o < d; ++o)
                circulant_entry(to, o, j) += grad_theta[std::size_t((i * d + j) * d + o)];
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif
