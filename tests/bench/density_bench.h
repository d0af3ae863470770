#pragma once

#include <string>

#include "tests/bench/figures.h"

namespace creel::bench {

// How fast sessions open and how many fit on one host. `part`: `open` (cold, warm, from pause),
// `burst` (fifty at once), `idle` (1, 50 and 200 that do nothing), `mixed` (1,000 commands a second
// over 50 sessions); empty: all of them. False: there is no such part. Throws where something does
// not work.
bool MeasureDensity(Report& report, const std::string& part);

}  // namespace creel::bench
