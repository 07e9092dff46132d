/// \file
/// Rivals of the recurrences, behind plain pointers: each is compiled in its own way.
#ifndef DEFT_BENCHMARKS_PEERS_RECURRENCES_HPP
#define DEFT_BENCHMARKS_PEERS_RECURRENCES_HPP

#include <deft/config.hpp>

namespace deft::bench {

/// retention from an empty state with roots of the decayed count: q, k [heads, tokens, dk], v, o [heads, tokens, dv],
/// gamma [heads]; state [heads, dk, dv] is working memory.
struct retention_peer {
    const float *q, *k, *v;
    const double* gamma;
    float *o, *state;
    index heads, tokens, dk, dv;
};

/// selective_scan with softplus, skip and gate, one group of states: u, delta, z, y [tokens, channels],
/// a, state [channels, states], b, c [tokens, states], skip [channels]; state is updated.
struct selective_scan_peer {
    const float *u, *delta, *a, *b, *c, *skip, *z;
    float *y, *state;
    index tokens, channels, states;
};

namespace eigen {
/// Chunks of tokens, four products each: what a careful user of Eigen writes.
void run(const retention_peer& s, index chunk);
} // namespace eigen

namespace autovec {
/// The plain recurrences, vectorised by the compiler with -ffast-math.
void run(const retention_peer& s);
void run(const selective_scan_peer& s);
} // namespace autovec

} // namespace deft::bench

#endif
