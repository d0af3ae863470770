#pragma once

#include <string>
#include <vector>

namespace creel::testing {

// Suites run a second time with $CREEL_TEST_RUNTIME=runsc.
bool Gvisor();

// Many times on Linux; fewer under gVisor, whose ptrace platform takes milliseconds for what takes
// Linux microseconds.
template <class Count>
Count Times(Count on_linux, Count under_gvisor) {
  return Gvisor() ? under_gvisor : on_linux;
}

// True under gVisor, after it was told on the standard output that this case, or the named part of
// it, does not hold there, and why. docs/modes.md has the list.
bool NotUnderGvisor(const std::string& part, const std::string& why);

// The lines `BROKE: what` of a program's output whose `what` is not among these. Under Linux none
// is excused.
std::vector<std::string> BrokenBut(const std::string& output,
                                   const std::vector<std::string>& excused_under_gvisor);

}  // namespace creel::testing
