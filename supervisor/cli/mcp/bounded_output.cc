#include "supervisor/cli/mcp/bounded_output.h"

#include <algorithm>

namespace creel::cli::mcp {

void BoundedOutput::Add(uint64_t offset, std::string_view data) {
  end_ = offset + data.size();
  if (tail_.empty() && left_out_ == 0) {
    const size_t room = head_limit_ - std::min(head_limit_, head_.size());
    const size_t taken = std::min(room, data.size());
    head_.append(data.substr(0, taken));
    data.remove_prefix(taken);
    offset += taken;
  }
  if (data.empty()) {
    return;
  }
  if (tail_.empty() && left_out_ == 0) {
    gap_from_ = offset;
  }
  tail_.append(data);
  if (tail_.size() > tail_limit_) {
    const size_t over = tail_.size() - tail_limit_;
    left_out_ += over;
    tail_.erase(0, over);
  }
}

}  // namespace creel::cli::mcp
