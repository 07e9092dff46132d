/// \file
/// Non-owning tensors: `view<T, Rank>`, the input parameter `in<T, Rank>`, and `rows<T>` for elementwise operators.
///
/// A view is a pointer, extents and strides in elements; the last stride is 1. Views are built implicitly, without a
/// copy, from row-major Eigen matrices, maps and blocks, Eigen vectors, contiguous ranges, `{pointer, {extents...}}`
/// and std::mdspan. What would need a copy (a column-major matrix, an inner stride) does not convert.
/// Knows neither Eigen nor xsimd; C++17.
#ifndef DEFT_VIEW_HPP
#define DEFT_VIEW_HPP

#include <deft/config.hpp>

#include <initializer_list>
#include <iterator>
#include <limits>
#include <type_traits>
#include <utility>

namespace deft {

/// Stands for an optional tensor that is not given: converts to a view without data.
struct absent_t {};
inline constexpr absent_t absent{};

/// Extents of a tensor; takes exactly `Rank` integers.
template <int Rank>
struct shape {
    index extents[std::size_t(Rank)];

    template <class... I, class = std::enable_if_t<sizeof...(I) == Rank && (std::is_integral_v<I> && ...)>>
    DEFT_ALWAYS_INLINE constexpr shape(I... i) noexcept : extents{static_cast<index>(i)...} {}
};

inline namespace DEFT_ISA {
namespace detail {

// What a foreign tensor looks like, told by its members, so that no tensor library is included.
template <class E, class = void>
struct is_eigen : std::false_type {};
template <class E>
struct is_eigen<E, std::void_t<typename E::Scalar, decltype(std::declval<E&>().data()),
                               decltype(std::declval<E&>().outerStride()), decltype(E::IsRowMajor)>> : std::true_type {
};

template <class M, class = void>
struct is_mdspan : std::false_type {};
template <class M>
struct is_mdspan<M, std::void_t<decltype(std::declval<M&>().data_handle()), decltype(M::rank()),
                                decltype(std::declval<M&>().stride(0))>> : std::true_type {};

template <class V, class = void>
struct is_view : std::false_type {};
template <class V>
struct is_view<V, std::void_t<typename V::element_type, decltype(std::declval<V&>().is_contiguous())>>
    : std::true_type {};

template <class R, class = void>
struct is_range : std::false_type {};
template <class R>
struct is_range<R, std::void_t<decltype(std::data(std::declval<R&>())), decltype(std::size(std::declval<R&>()))>>
    : std::bool_constant<!is_eigen<R>::value && !is_mdspan<R>::value && !is_view<R>::value> {};

template <class From, class To>
inline constexpr bool points_to = std::is_convertible_v<std::remove_reference_t<From> (*)[], To (*)[]>;

// Data pointer type of a source, or a type that converts to nothing.
template <class S, class = void>
struct source {
    static constexpr int rank = -1;
    using element = void;
};
template <class S>
struct source<S, std::enable_if_t<is_range<S>::value>> {
    static constexpr int rank = 1;
    using element = std::remove_pointer_t<decltype(std::data(std::declval<S&>()))>;
};
template <class S>
struct source<S, std::enable_if_t<is_mdspan<S>::value>> {
    static constexpr int rank = static_cast<int>(S::rank());
    using element = std::remove_pointer_t<decltype(std::declval<S&>().data_handle())>;
};
template <class S>
struct source<S, std::enable_if_t<is_eigen<S>::value>> {
    static constexpr bool is_vector = bool(S::IsVectorAtCompileTime);
    static constexpr bool has_unit_stride = int(S::InnerStrideAtCompileTime) == 1;
    // An Eigen vector is a tensor of rank 1, and a row vector may also stand for a matrix of one row.
    static constexpr int rank = !has_unit_stride ? -1 : is_vector ? 1 : bool(S::IsRowMajor) ? 2 : -1;
    using element = std::remove_pointer_t<decltype(std::declval<S&>().data())>;
};

template <class S, class T, int Rank, class = void>
struct converts : std::false_type {};
template <class S, class T, int Rank>
struct converts<S, T, Rank, std::enable_if_t<(Rank > 0) && source<S>::rank == Rank>>
    : std::bool_constant<points_to<typename source<S>::element, T>> {};

} // namespace detail
} // namespace DEFT_ISA

/// A tensor of `Rank` axes over memory of the caller, row-major, last stride 1.
/// `view<const T, Rank>` only reads. Copying a view copies no elements.
template <class T, int Rank>
class view {
    static_assert(Rank >= 1, "a view has at least one axis");
    static_assert(!std::is_void_v<T>, "state the element type: deft::operator_name<float>(...)");

public:
    using element_type = T;
    using value_type = std::remove_const_t<T>;
    static constexpr int rank = Rank;

    /// No elements, no data.
    DEFT_ALWAYS_INLINE constexpr view() noexcept = default;
    DEFT_ALWAYS_INLINE constexpr view(absent_t) noexcept {}

    /// Contiguous: `{pointer, {extents...}}`.
    DEFT_ALWAYS_INLINE constexpr view(T* data, shape<Rank> extents) noexcept : data_(data) {
        index stride = 1;
        for (int axis = Rank - 1; axis >= 0; --axis) {
            extent_[axis] = extents.extents[axis];
            stride_[axis] = stride;
            stride *= extents.extents[axis];
        }
    }

    /// Strided; the last stride must be 1.
    DEFT_ALWAYS_INLINE constexpr view(T* data, shape<Rank> extents, shape<Rank> strides) : data_(data) {
        for (int axis = 0; axis < Rank; ++axis) {
            extent_[axis] = extents.extents[axis];
            stride_[axis] = strides.extents[axis];
        }
        detail::check(stride_[Rank - 1] == 1, "view", "last stride", "must be 1", double(stride_[Rank - 1]));
    }

    /// `view<T>` to `view<const T>`.
    template <class U, class = std::enable_if_t<!std::is_same_v<U, T> && detail::points_to<U, T>>>
    DEFT_ALWAYS_INLINE constexpr view(const view<U, Rank>& other) noexcept : data_(other.data()) {
        for (int axis = 0; axis < Rank; ++axis) {
            extent_[axis] = other.extent(axis);
            stride_[axis] = other.stride(axis);
        }
    }

    /// Contiguous ranges, Eigen objects and std::mdspan of this rank.
    template <class S, class = std::enable_if_t<detail::converts<std::remove_reference_t<S>, T, Rank>::value>>
    DEFT_ALWAYS_INLINE constexpr view(S&& s) {
        using source = std::remove_reference_t<S>;
        if constexpr (detail::is_mdspan<source>::value) {
            data_ = s.data_handle();
            for (int axis = 0; axis < Rank; ++axis) {
                extent_[axis] = static_cast<index>(s.extent(static_cast<std::size_t>(axis)));
                stride_[axis] = static_cast<index>(s.stride(static_cast<std::size_t>(axis)));
            }
            detail::check(stride_[Rank - 1] == 1, "view", "last stride of an mdspan", "must be 1",
                          double(stride_[Rank - 1]));
        } else if constexpr (Rank == 1) {
            data_ = std::data(s);
            extent_[0] = static_cast<index>(s.size());
            stride_[0] = 1;
        } else {
            data_ = s.data();
            extent_[0] = static_cast<index>(s.rows());
            extent_[1] = static_cast<index>(s.cols());
            stride_[0] = static_cast<index>(s.outerStride());
            stride_[1] = 1;
        }
    }

    DEFT_ALWAYS_INLINE constexpr T* data() const noexcept {
        return data_;
    }
    DEFT_ALWAYS_INLINE constexpr index extent(int axis) const noexcept {
        return extent_[axis];
    }
    /// Distance of neighbours along `axis`, in elements.
    DEFT_ALWAYS_INLINE constexpr index stride(int axis) const noexcept {
        return stride_[axis];
    }

    DEFT_ALWAYS_INLINE constexpr index size() const noexcept {
        index n = 1;
        for (int axis = 0; axis < Rank; ++axis)
            n *= extent_[axis];
        return n;
    }

    /// False for an optional tensor that was not given.
    DEFT_ALWAYS_INLINE constexpr bool is_given() const noexcept {
        return data_ != nullptr || size() != 0;
    }

    DEFT_ALWAYS_INLINE constexpr bool is_contiguous() const noexcept {
        index expected = 1;
        for (int axis = Rank - 1; axis >= 0; --axis) {
            if (extent_[axis] != 1 && stride_[axis] != expected)
                return false;
            expected *= extent_[axis];
        }
        return true;
    }

    /// Element at the given position; unchecked but for debug asserts.
    template <class... I>
    DEFT_ALWAYS_INLINE constexpr T& operator()(I... i) const noexcept {
        static_assert(sizeof...(I) == Rank, "one index per axis");
        const index at[std::size_t(Rank)] = {static_cast<index>(i)...};
        index offset = 0;
        for (int axis = 0; axis < Rank; ++axis) {
            DEFT_ASSERT(at[axis] >= 0 && at[axis] < extent_[axis]);
            offset += at[axis] * stride_[axis];
        }
        return data_[offset];
    }

private:
    T* data_ = nullptr;
    index extent_[std::size_t(Rank)] = {};
    index stride_[std::size_t(Rank)] = {};
};

/// A tensor of any rank >= 1 seen as rows x channels: the last axis stays, the leading ones collapse into one.
/// For operators that work elementwise or along the last axis. A rank-1 tensor is one row.
template <class T>
class rows : public view<T, 2> {
public:
    DEFT_ALWAYS_INLINE constexpr rows() noexcept = default;
    DEFT_ALWAYS_INLINE constexpr rows(absent_t) noexcept {}
    DEFT_ALWAYS_INLINE constexpr rows(const view<T, 2>& v) noexcept : view<T, 2>(v) {}

    /// Contiguous: `{pointer, {extents...}}`, any number of extents.
    DEFT_ALWAYS_INLINE constexpr rows(T* data, std::initializer_list<index> extents) noexcept
        : view<T, 2>(data, {leading(extents), last(extents)}) {}

    /// Views of any rank; throws std::invalid_argument if the leading axes are not evenly spaced.
    template <class U, int Rank, class = std::enable_if_t<detail::points_to<U, T>>>
    DEFT_ALWAYS_INLINE constexpr rows(const view<U, Rank>& v) : view<T, 2>(collapse(v)) {}

    template <class U, class = std::enable_if_t<!std::is_same_v<U, T> && detail::points_to<U, T>>>
    DEFT_ALWAYS_INLINE constexpr rows(const rows<U>& v) noexcept : view<T, 2>(static_cast<const view<U, 2>&>(v)) {}

    /// Whatever converts to a view: ranges, Eigen objects, std::mdspan.
    template <class S,
              class = std::enable_if_t<detail::converts<std::remove_reference_t<S>, T,
                                                        detail::source<std::remove_reference_t<S>>::rank>::value>,
              class = void>
    DEFT_ALWAYS_INLINE constexpr rows(S&& s)
        : view<T, 2>(collapse(view<T, detail::source<std::remove_reference_t<S>>::rank>(std::forward<S>(s)))) {}

private:
    DEFT_ALWAYS_INLINE static constexpr index leading(std::initializer_list<index> extents) noexcept {
        index n = 1;
        for (const index* e = extents.begin(); e + 1 < extents.end(); ++e)
            n *= *e;
        return n;
    }
    DEFT_ALWAYS_INLINE static constexpr index last(std::initializer_list<index> extents) noexcept {
        return extents.size() == 0 ? 0 : extents.end()[-1];
    }
    template <class U, int Rank>
    DEFT_ALWAYS_INLINE static constexpr view<T, 2> collapse(const view<U, Rank>& v) {
        if constexpr (Rank == 1) {
            return view<T, 2>(v.data(), {1, v.extent(0)});
        } else {
            index count = 1;
            index stride = v.extent(Rank - 1); // of a single row: any value does
            for (int axis = Rank - 2; axis >= 0; --axis) {
                if (v.extent(axis) == 1)
                    continue;
                if (count == 1)
                    stride = v.stride(axis);
                else if (v.size() != 0)
                    detail::check(v.stride(axis) == count * stride, "rows", "stride of a leading axis",
                                  "the leading axes must be evenly spaced", double(v.stride(axis)));
                count *= v.extent(axis);
            }
            return view<T, 2>(v.data(), {count, v.extent(Rank - 1)}, {stride, index{1}});
        }
    }
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
struct non_deduced {
    using type = T;
};

template <class T, class Y, class = void>
struct element {
    using type = T;
};
template <class Y>
struct element<void, Y, std::enable_if_t<!std::is_void_v<typename source<std::remove_reference_t<Y>>::element>>> {
    using type = std::remove_const_t<typename source<std::remove_reference_t<Y>>::element>;
};
template <class Y>
struct element<void, Y, std::enable_if_t<is_view<std::remove_reference_t<Y>>::value>> {
    using type = typename std::remove_reference_t<Y>::value_type;
};

template <class T>
DEFT_ALWAYS_INLINE constexpr int float_digits() {
    return sizeof(T) == 2 && std::numeric_limits<T>::is_specialized && !std::numeric_limits<T>::is_integer
               ? std::numeric_limits<T>::digits
               : 0;
}

} // namespace detail
} // namespace DEFT_ISA

/// Input parameter: like `view<const T, Rank>`, but takes no part in template deduction, so that everything that
/// converts to a view is accepted. The element type comes from the output, or is written by the caller.
template <class T, int Rank>
using in = typename detail::non_deduced<view<const T, Rank>>::type;

/// Output parameter beyond the first, from which the element type is deduced.
template <class T, int Rank>
using out = typename detail::non_deduced<view<T, Rank>>::type;

template <class T>
using in_rows = typename detail::non_deduced<rows<const T>>::type;

/// Output parameter beyond the first, of any rank.
template <class T>
using out_rows = typename detail::non_deduced<rows<T>>::type;

/// Element type of an operator: `T` if the caller wrote it, else that of the output `Y`.
template <class T, class Y>
using element_t = typename detail::element<T, Y>::type;

/// True for 16-bit storage types: IEEE binary16 (Eigen::half, std::float16_t) and bfloat16, told by their
/// std::numeric_limits. They are loaded and stored; all arithmetic is done in float.
template <class T>
inline constexpr bool is_binary16 = detail::float_digits<T>() == 11;
template <class T>
inline constexpr bool is_bfloat16 = detail::float_digits<T>() == 8;

/// The type that arithmetic on `T` is done in: float for the 16-bit storage types, else `T`.
template <class T>
using compute_t = std::conditional_t<is_binary16<T> || is_bfloat16<T>, float, T>;

} // namespace deft

#endif
