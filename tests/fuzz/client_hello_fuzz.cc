// What a sandbox may send into a tunnel: what was once read of its first bytes stays true when more
// of them come.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "supervisor/egress/client_hello.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using creel::egress::HelloFacts;
  using creel::egress::ReadClientHello;
  if (size < 2) {
    return 0;
  }
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto whole = ReadClientHello(bytes);
  const auto part = ReadClientHello(bytes.substr(0, bytes.size() * data[0] / 256));
  if (part.ok() && part->kind != HelloFacts::Kind::kNeedMore) {
    if (!whole.ok() || whole->kind != part->kind || whole->server_name != part->server_name) {
      std::abort();
    }
  }
  if (!part.ok() && whole.ok()) {
    std::abort();
  }
  if (whole.ok() && whole->kind != HelloFacts::Kind::kHello && !whole->server_name.empty()) {
    std::abort();
  }
  return 0;
}
