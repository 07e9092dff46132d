// Views: what converts to them, what does not, and what they say of it.
#include "support/catch.hpp"

#include <deft/view.hpp>

#include <Eigen/Core>

#include <array>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace deft::testing {

namespace {

using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using column_major = Eigen::MatrixXf;

template <class From, class To>
constexpr bool converts = std::is_convertible_v<From, To>;

// What would need a copy does not convert.
static_assert(converts<row_major&, view<float, 2>>);
static_assert(converts<const row_major&, view<const float, 2>>);
static_assert(!converts<const row_major&, view<float, 2>>);
static_assert(!converts<column_major&, view<float, 2>>);
static_assert(!converts<column_major&, view<const float, 2>>);
static_assert(!converts<column_major&, rows<const float>>);
static_assert(!converts<row_major&, view<double, 2>>);
static_assert(!converts<row_major&, view<float, 1>>);
static_assert(!converts<row_major&, view<float, 3>>);
static_assert(!converts<Eigen::Map<Eigen::VectorXf, 0, Eigen::InnerStride<2>>&, view<float, 1>>);
static_assert(!converts<decltype(std::declval<row_major&>().col(0)), view<float, 1>>);

static_assert(converts<std::vector<float>&, view<float, 1>>);
static_assert(!converts<const std::vector<float>&, view<float, 1>>);
static_assert(converts<const std::vector<float>&, view<const float, 1>>);
static_assert(!converts<std::vector<double>&, view<const float, 1>>);
static_assert(!converts<std::vector<float>&, view<float, 2>>);
static_assert(converts<float (&)[4], view<float, 1>>);
static_assert(converts<std::array<float, 4>&, view<float, 1>>);
static_assert(converts<std::span<float>, view<float, 1>>);

static_assert(converts<view<float, 2>, view<const float, 2>>);
static_assert(!converts<view<const float, 2>, view<float, 2>>);
static_assert(!converts<view<float, 2>, view<float, 3>>);
static_assert(converts<rows<float>, rows<const float>>);
static_assert(converts<rows<float>, view<const float, 2>>);
static_assert(converts<view<float, 4>, rows<const float>>);
static_assert(!converts<view<const float, 4>, rows<float>>);

// The element type of an operator: that of the output, unless the caller writes it.
static_assert(std::is_same_v<deft::element_t<void, row_major&>, float>);
static_assert(std::is_same_v<deft::element_t<void, std::vector<double>&>, double>);
static_assert(std::is_same_v<deft::element_t<void, rows<double>>, double>);
static_assert(std::is_same_v<deft::element_t<void, const view<float, 3>&>, float>);
static_assert(std::is_same_v<deft::element_t<double, rows<double>>, double>);

// Storage types compute in float.
static_assert(deft::is_binary16<Eigen::half> && !deft::is_bfloat16<Eigen::half>);
static_assert(deft::is_bfloat16<Eigen::bfloat16> && !deft::is_binary16<Eigen::bfloat16>);
static_assert(!deft::is_binary16<float> && !deft::is_bfloat16<short>);
static_assert(std::is_same_v<deft::compute_t<Eigen::half>, float>);
static_assert(std::is_same_v<deft::compute_t<Eigen::bfloat16>, float>);
static_assert(std::is_same_v<deft::compute_t<double>, double>);

template <class View>
std::vector<index> extents_of(const View& v) {
    std::vector<index> extents;
    for (int axis = 0; axis < View::rank; ++axis)
        extents.push_back(v.extent(axis));
    return extents;
}

template <class View>
std::vector<index> strides_of(const View& v) {
    std::vector<index> strides;
    for (int axis = 0; axis < View::rank; ++axis)
        strides.push_back(v.stride(axis));
    return strides;
}

using list = std::vector<index>;

} // namespace

TEST_CASE("a view of pointer and extents is contiguous and row-major") {
    std::vector<float> data(24);
    const view<float, 3> v(data.data(), {2, 3, 4});
    CHECK(extents_of(v) == list{2, 3, 4});
    CHECK(strides_of(v) == list{12, 4, 1});
    CHECK(v.size() == 24);
    CHECK(v.is_contiguous());
    CHECK(v.is_given());
    CHECK(&v(1, 2, 3) == data.data() + 23);

    v(0, 1, 0) = 5;
    CHECK(data[4] == 5);
    const view<const float, 3> read_only = v;
    CHECK(read_only(0, 1, 0) == 5);
    CHECK(read_only.data() == data.data());
}

TEST_CASE("a strided view has gaps between its rows, never inside them") {
    std::vector<float> data(30);
    const view<float, 2> v(data.data(), {3, 7}, {10, 1});
    CHECK(&v(2, 6) == data.data() + 26);
    CHECK_FALSE(v.is_contiguous());
    CHECK(view<float, 2>(data.data(), {1, 7}, {10, 1}).is_contiguous()); // the stride of a single row does not matter
    CHECK_THROWS_AS((view<float, 2>(data.data(), {3, 7}, {10, 2})), std::invalid_argument);
}

TEST_CASE("an absent tensor is not an empty one") {
    CHECK_FALSE(view<float, 1>().is_given());
    CHECK_FALSE(view<const float, 2>(deft::absent).is_given());
    float data = 0;
    CHECK(view<float, 1>(&data, {0}).is_given());
}

TEST_CASE("Eigen objects are seen in place") {
    row_major m = row_major::Random(4, 6);
    const view<float, 2> whole = m;
    CHECK(whole.data() == m.data());
    CHECK(extents_of(whole) == list{4, 6});

    auto block = m.block(1, 2, 2, 3);
    const view<float, 2> part = block;
    CHECK(part.data() == &m(1, 2));
    CHECK(extents_of(part) == list{2, 3});
    CHECK(strides_of(part) == list{6, 1});
    CHECK(part(1, 2) == m(2, 4));

    const Eigen::Map<const row_major> map(m.data(), 3, 8);
    CHECK(extents_of(view<const float, 2>(map)) == list{3, 8});

    Eigen::VectorXf vector = Eigen::VectorXf::Random(5);
    CHECK(extents_of(view<float, 1>(vector)) == list{5});
    Eigen::RowVectorXf row_vector = Eigen::RowVectorXf::Random(5);
    CHECK(view<float, 1>(row_vector).data() == row_vector.data());
    CHECK(extents_of(rows<float>(row_vector)) == list{1, 5});
    CHECK(extents_of(rows<float>(m)) == list{4, 6});
}

TEST_CASE("rows collapse the leading axes") {
    std::vector<float> data(120);
    CHECK(extents_of(rows<float>(data)) == list{1, 120});
    CHECK(extents_of(rows<float>(data.data(), {2, 3, 20})) == list{6, 20});
    CHECK(extents_of(rows<float>(data.data(), {7})) == list{1, 7});
    CHECK(extents_of(rows<float>(data.data(), {0, 3, 4})) == list{0, 4});
    CHECK(extents_of(rows<float>(data.data(), {3, 4, 0})) == list{12, 0});

    const rows<float> r = view<float, 3>(data.data(), {2, 3, 4}, {30, 10, 1});
    CHECK(extents_of(r) == list{6, 4});
    CHECK(strides_of(r) == list{10, 1});
    CHECK(&r(4, 2) == data.data() + 42);
    const rows<float> skips_ones = view<float, 4>(data.data(), {2, 1, 3, 4}, {30, 77, 10, 1});
    CHECK(strides_of(skips_ones) == list{10, 1});

    CHECK_THROWS_AS(rows<float>(view<float, 3>(data.data(), {2, 3, 4}, {31, 10, 1})), std::invalid_argument);
    CHECK_NOTHROW(rows<float>(view<float, 3>(data.data(), {2, 0, 4}, {31, 10, 1})));
}

} // namespace deft::testing
