#include "supervisor/egress/http_body.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>

#include "supervisor/base/escape.h"

namespace creel::egress {
namespace {

constexpr size_t kMaxSizeDigits = 15;
constexpr size_t kMaxTrailerBytes = 8u << 10;

absl::Status Bad(const std::string& why) { return absl::InvalidArgumentError(why); }

}  // namespace

BodyReader::BodyReader(const Framing& framing) : kind_(framing.kind) {
  switch (framing.kind) {
    case Framing::Kind::kNone:
      state_ = State::kDone;
      break;
    case Framing::Kind::kLength:
      left_ = framing.length;
      state_ = left_ == 0 ? State::kDone : State::kData;
      break;
    case Framing::Kind::kChunked:
      state_ = State::kSize;
      break;
    case Framing::Kind::kUntilClose:
      left_ = UINT64_MAX;
      state_ = State::kData;
      break;
  }
}

absl::StatusOr<size_t> BodyReader::Take(std::string_view in, std::string& out, size_t most) {
  size_t taken = 0;
  while (state_ != State::kDone && taken < in.size()) {
    if (state_ == State::kData) {
      const size_t piece =
          static_cast<size_t>(std::min<uint64_t>({left_, in.size() - taken, most}));
      if (piece == 0) {
        break;
      }
      out.append(in.substr(taken, piece));
      taken += piece;
      most -= piece;
      bytes_ += piece;
      if (kind_ != Framing::Kind::kUntilClose) {
        left_ -= piece;
      }
      if (left_ == 0) {
        state_ = kind_ == Framing::Kind::kChunked ? State::kDataEnd : State::kDone;
      }
      continue;
    }
    // Everything else is lines, read byte by byte, as they are short.
    const char c = in[taken++];
    const bool after_cr = !line_.empty() && line_.back() == '\r';
    if (after_cr != (c == '\n')) {
      return Bad("a line of the chunked body does not end in CR LF");
    }
    if (c != '\n') {
      line_.push_back(c);
      const size_t limit =
          state_ == State::kTrailer ? kMaxTrailerBytes : size_t{kMaxSizeDigits + 1};
      if (line_.size() > limit) {
        return Bad("a line of the chunked body is too long");
      }
      continue;
    }
    line_.pop_back();
    RETURN_IF_ERROR(OnLine());
    line_.clear();
  }
  return taken;
}

absl::Status BodyReader::OnLine() {
  switch (state_) {
    case State::kSize: {
      const bool digits =
          !line_.empty() && std::all_of(line_.begin(), line_.end(), [](unsigned char c) {
            return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
          });
      if (!digits) {
        return Bad(fmt::format("'{}' is no chunk's size", Printable(line_, 32)));
      }
      std::from_chars(line_.data(), line_.data() + line_.size(), left_, 16);
      state_ = left_ == 0 ? State::kTrailer : State::kData;
      return absl::OkStatus();
    }
    case State::kDataEnd:
      if (!line_.empty()) {
        return Bad("a chunk is longer than it says");
      }
      state_ = State::kSize;
      return absl::OkStatus();
    case State::kTrailer:
      if (line_.empty()) {
        state_ = State::kDone;
        return absl::OkStatus();
      }
      // Trailers are not passed on; what they would be worth depends on the reader.
      trailer_bytes_ += line_.size() + 2;
      return trailer_bytes_ > kMaxTrailerBytes ? Bad("the trailers are too long")
                                               : absl::OkStatus();
    case State::kData:
    case State::kDone:
      break;
  }
  return absl::InternalError("a line where none can be");
}

absl::Status BodyReader::End() {
  if (kind_ == Framing::Kind::kUntilClose) {
    state_ = State::kDone;
  }
  return done() ? absl::OkStatus() : Bad("the connection ended in the middle of the body");
}

void AppendChunk(std::string_view data, std::string& out) {
  if (!data.empty()) {
    fmt::format_to(std::back_inserter(out), "{:x}\r\n", data.size());
    out.append(data);
    out.append("\r\n");
  }
}

}  // namespace creel::egress
