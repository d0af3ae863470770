#pragma once

#include "tests/bench/figures.h"

namespace creel::bench {

// The evidence of an incident about a session with a workspace of 200 MB that does not compress:
// `capture_200mb_s`. Throws where something does not work.
void MeasureCapture(Report& report);

}  // namespace creel::bench
