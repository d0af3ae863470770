#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace creel::egress {

// What a server that takes a handshake with this Sec-WebSocket-Key says in Sec-WebSocket-Accept.
std::string WebSocketAccept(std::string_view key);

// Finds where the frames of one direction of a WebSocket end (RFC 6455, section 5.2).
class FrameReader {
 public:
  // How many bytes at the front of `in` belong to the frame that is being read; `ended`: it ends
  // with them.
  size_t Take(std::string_view in, bool& ended);

 private:
  // Of the head as far as it has come: at least 2.
  [[nodiscard]] size_t HeadBytes() const;

  std::string head_;
  bool in_payload_ = false;
  uint64_t left_ = 0;  // of the payload
};

}  // namespace creel::egress
