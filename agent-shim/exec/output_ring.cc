#include "agent-shim/exec/output_ring.h"

#include <algorithm>
#include <utility>

namespace creel::shim {
namespace {

// What a piece takes besides its bytes. Counted, so that a command which writes single bytes to
// both streams in turn cannot make the shim hold a hundred times what the ring is meant to.
constexpr uint64_t kOverhead = 256;
// Small output is joined to the piece before, up to this size.
constexpr size_t kJoinedBytes = 32u << 10;

}  // namespace

void OutputRing::Append(v1::OutputStream stream, std::string data) {
  if (data.empty()) {
    return;
  }
  const uint64_t bytes = data.size();
  if (!pieces_.empty() && pieces_.back().use_count() == 1) {
    // Nobody is sending that piece at this moment.
    v1::Output& last = *pieces_.back()->mutable_event()->mutable_output();
    if (last.stream() == stream && last.data().size() + bytes <= kJoinedBytes) {
      last.mutable_data()->append(data);
      end_ += bytes;
      cost_ += bytes;
      return;
    }
  }
  auto piece = std::make_shared<v1::RunResponse>();
  v1::Output& output = *piece->mutable_event()->mutable_output();
  output.set_stream(stream);
  output.set_offset(end_);
  output.set_data(std::move(data));
  pieces_.push_back(std::move(piece));
  end_ += bytes;
  cost_ += bytes + kOverhead;
}

void OutputRing::Trim(uint64_t bytes, uint64_t keep_from) {
  while (!pieces_.empty() && cost_ > bytes) {
    const uint64_t size = pieces_.front()->event().output().data().size();
    if (begin_ + size > keep_from) {
      return;
    }
    pieces_.pop_front();
    begin_ += size;
    cost_ -= size + kOverhead;
  }
}

OutputRing::Next OutputRing::Read(uint64_t offset) const {
  if (offset >= end_) {
    return std::monostate{};
  }
  if (offset < begin_) {
    v1::OutputGap gap;
    gap.set_from(offset);
    gap.set_to(begin_);
    return gap;
  }
  auto after = std::upper_bound(pieces_.begin(), pieces_.end(), offset,
                                [](uint64_t at, const std::shared_ptr<v1::RunResponse>& piece) {
                                  return at < piece->event().output().offset();
                                });
  const std::shared_ptr<v1::RunResponse>& found = *std::prev(after);
  const v1::Output& output = found->event().output();
  if (output.offset() == offset) {
    return Piece(found);
  }
  auto rest = std::make_shared<v1::RunResponse>();
  v1::Output& part = *rest->mutable_event()->mutable_output();
  part.set_stream(output.stream());
  part.set_offset(offset);
  part.set_data(output.data().substr(offset - output.offset()));
  return Piece(std::move(rest));
}

}  // namespace creel::shim
