/// \file
/// Matrices that lie as deft's do.
#ifndef DEFT_TESTS_SHORTCUT_ROW_MAJOR_HPP
#define DEFT_TESTS_SHORTCUT_ROW_MAJOR_HPP

#include <Eigen/Core>

namespace deft::testing {

template <class T>
using row_major = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using matrix = row_major<double>;

} // namespace deft::testing

#endif
