#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace creel {

// SHA-256 over data that comes in pieces.
class Sha256 {
 public:
  Sha256();
  void Update(std::string_view data);
  // The 32 bytes; the object is spent.
  std::string Finish();

 private:
  alignas(8) unsigned char state_[128];
};

// HMAC-SHA256 (RFC 2104), 32 bytes.
std::string HmacSha256(std::string_view key, std::string_view message);

// Whether two strings are the same, in time that depends on their lengths alone.
bool ConstantTimeEqual(std::string_view a, std::string_view b);

// `count` bytes from the kernel's generator. Ends the process if the kernel has none to give.
std::string RandomBytes(size_t count);

// RFC 4648, with padding and without line breaks.
std::string Base64(std::string_view bytes);

// Lower-case hexadecimal.
std::string Hex(std::string_view bytes);

}  // namespace creel
