#include "tests/integration/support/gvisor.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <sstream>

namespace creel::testing {

bool Gvisor() {
  const char* runtime = std::getenv("CREEL_TEST_RUNTIME");
  return runtime != nullptr && std::string(runtime) == "runsc";
}

bool NotUnderGvisor(const std::string& part, const std::string& why) {
  if (!Gvisor()) {
    return false;
  }
  const auto* current = doctest::getContextOptions()->currentTest;
  std::cout << "not under runsc: " << (current != nullptr ? current->m_name : "?")
            << (part.empty() ? "" : " / " + part) << ": " << why << std::endl;
  return true;
}

std::vector<std::string> BrokenBut(const std::string& output,
                                   const std::vector<std::string>& excused_under_gvisor) {
  std::vector<std::string> broken;
  std::istringstream lines(output);
  const std::string mark = "BROKE: ";
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(mark, 0) != 0) {
      continue;
    }
    // Without the number of the process it was done to.
    std::string what = line.substr(mark.size());
    what = what.substr(0, what.find(" of "));
    const bool excused =
        Gvisor() && std::find(excused_under_gvisor.begin(), excused_under_gvisor.end(), what) !=
                        excused_under_gvisor.end();
    if (!excused) {
      broken.push_back(line);
    }
  }
  return broken;
}

}  // namespace creel::testing
