#pragma once

#include "tests/bench/figures.h"

namespace creel::bench {

// The sandboxes' way out beside direct connections on loopback: `egress_added_ms`,
// `egress_over_direct` and `egress_neighbour`. Throws where something does not work.
void MeasureEgress(Report& report);

}  // namespace creel::bench
