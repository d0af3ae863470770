#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "supervisor/base/status.h"

namespace creel::egress {

// What the start of a connection shows.
struct HelloFacts {
  enum class Kind {
    kNeedMore,  // a ClientHello so far, not complete
    kHello,
    kNotTls,  // whatever follows, it is not TLS
  };
  Kind kind = Kind::kNeedMore;
  std::string server_name;  // in lower case; empty: the hello names none
};

// Reads the name in a ClientHello (RFC 8446, RFC 6066), which may be spread over records and come
// in pieces: `bytes` is all that has come so far. An encrypted inner hello (ECH, or the grease that
// browsers send in its place) is not looked at: the outer name is what counts. kInvalidArgument: it
// is TLS, and malformed or longer than 64 KiB, or holds more than one name.
absl::StatusOr<HelloFacts> ReadClientHello(std::string_view bytes);

}  // namespace creel::egress
