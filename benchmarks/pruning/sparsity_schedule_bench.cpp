// Nothing: a schedule is a few operations per step of training.
#include "../support/suite.hpp"

namespace deft::bench {

void benchmark_layer_densities(suite&) {}
void benchmark_sparsity_schedule(suite&) {}

} // namespace deft::bench
