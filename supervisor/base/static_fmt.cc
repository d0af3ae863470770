// The functions of libfmt for static binaries, out of its headers. Not for others, which have the
// shared library.
#define FMT_HEADER_ONLY
#include <fmt/format.h>

#include <string>

namespace creel {

// Never called; it makes the compiler keep what fmt::format and fmt::format_to need.
std::string StaticFmt(fmt::string_view format, fmt::format_args args) {
  return fmt::vformat(format, args);
}

}  // namespace creel
