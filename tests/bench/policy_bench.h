#pragma once

#include "tests/bench/figures.h"

namespace creel::bench {

// What a decision costs with 10,000 senders, 1,000 groups and 500 rules, and how fast replies are
// looked through. Needs no engine.
void PolicyFigures(Report& report);

}  // namespace creel::bench
