/// \file
/// What the examples read of the file that examples/smollm2_ffn.py writes.
#ifndef DEFT_EXAMPLES_SUPPORT_SMOLLM2_HPP
#define DEFT_EXAMPLES_SUPPORT_SMOLLM2_HPP

#include "safetensors.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include <Eigen/Core>

namespace deft::support {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

[[noreturn]] inline void fail(const safetensors_file& file, const std::string& reason) {
    throw std::runtime_error(file.path().string() + ": " + reason);
}

/// The tensor `name`, which must have this shape; an extent of -1 stands for any above zero.
inline const tensor& require(const safetensors_file& file, const std::string& name, const std::vector<index>& shape) {
    const tensor& t = file[name];
    const auto fits = [](index actual, index expected) { return expected == -1 ? actual > 0 : actual == expected; };
    if (!std::equal(t.shape.begin(), t.shape.end(), shape.begin(), shape.end(), fits))
        fail(file, "tensor '" + name + "' has shape " + to_string(t.shape) + ", expected " + to_string(shape) +
                       ", where -1 is any extent");
    return t;
}

inline matrix to_matrix(const tensor& t) {
    return Eigen::Map<const matrix>(to_vector<float>(t).data(), t.shape[0], t.shape[1]);
}

inline const std::string& metadata(const safetensors_file& file, const std::string& key) {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end())
        fail(file, "has no metadata '" + key + "'");
    return found->second;
}

/// The embeddings of the text's tokens, one row each.
inline matrix load_tokens(const safetensors_file& file, index hidden) {
    const tensor& embedding = require(file, "embedding", {-1, hidden});
    const tensor& token_ids = require(file, "token_ids", {-1});
    if (token_ids.dtype != "I64")
        fail(file, "tensor 'token_ids' is " + token_ids.dtype + ", expected I64");
    const std::vector<index> ids = to_vector<index>(token_ids);
    matrix x(static_cast<index>(ids.size()), hidden);
    for (index t = 0; t < x.rows(); ++t) {
        const index id = ids[static_cast<std::size_t>(t)];
        if (id < 0 || id >= embedding.shape[0])
            fail(file, "token id " + std::to_string(id) + " is outside the embedding of " +
                           std::to_string(embedding.shape[0]) + " rows");
        x.row(t) = Eigen::Map<const Eigen::RowVectorXf>(to_vector<float>(row(embedding, id)).data(), hidden);
    }
    return x;
}

} // namespace deft::support

#endif
