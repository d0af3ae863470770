#pragma once

#include <cstddef>
#include <vector>

namespace creel {

// A piece of a text that must not leave, and what it is. `kind` is a literal.
struct Span {
  size_t begin = 0;
  size_t end = 0;
  const char* kind = "";
};
using Spans = std::vector<Span>;

}  // namespace creel
