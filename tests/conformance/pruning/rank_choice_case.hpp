/// \file
/// The parameters by which a case chooses a rank.
#ifndef DEFT_TESTS_CONFORMANCE_PRUNING_RANK_CHOICE_CASE_HPP
#define DEFT_TESTS_CONFORMANCE_PRUNING_RANK_CHOICE_CASE_HPP

#include "support/call.hpp"

#include <deft/pruning/weight_spectrum.hpp>
#include <deft/reference/pruning/singular_values.hpp>

#include <string>

namespace deft::testing {

struct rank_choice_case {
    rank_choice choice{.mode = rank_mode::k};
    std::string mode;
    double value = 0;

    explicit rank_choice_case(const call_base& c) : mode(c.text("rank_mode")) {
        choice.mode =
            c.choice("rank_mode",
                     names<rank_mode>{{"k", rank_mode::k}, {"energy", rank_mode::energy}, {"tail", rank_mode::tail}});
        if (mode == "k")
            value = double(choice.rank = c.integer("rank"));
        else if (mode == "energy")
            value = choice.energy = c.number("energy");
        else
            value = choice.tail_energy = c.number("tail_energy");
    }
    template <class T>
    index reference(const std::vector<double>& s) const {
        return reference::choose_rank(s, mode, value, double(std::numeric_limits<T>::epsilon()));
    }
};

/// The values of a tensor as T, as a matrix.
template <class T>
struct matrix_of {
    std::vector<T> values;
    extents shape;

    explicit matrix_of(const tensor& t)
        : values(t.values.begin(), t.values.end()), shape{t.shape.at(0),
                                                          element_count({t.shape.begin() + 1, t.shape.end()})} {}
    in<T, 2> get() const {
        return {values.data(), {shape[0], shape[1]}};
    }
};

} // namespace deft::testing

#endif
