#pragma once

#include <string_view>

#include "supervisor/policy/span.h"

namespace creel {

// Finds what is shaped like a key: the common providers' tokens, private keys in PEM, JWTs, URLs
// with a password in them, and assignments of random values to names that speak of secrets. Kinds
// begin with `key.`. In time linear in the text, whatever it holds.
void FindKeys(std::string_view text, Spans& found);

}  // namespace creel
