#include "supervisor/policy/session_pattern.h"

namespace creel {

SessionPattern::SessionPattern(std::string_view pattern) {
  while (true) {
    const size_t star = pattern.find('*');
    pieces_.emplace_back(pattern.substr(0, star));
    if (star == std::string_view::npos) {
      break;
    }
    pattern.remove_prefix(star + 1);
  }
}

bool SessionPattern::Matches(std::string_view session) const {
  if (pieces_.size() == 1) {
    return session == pieces_[0];
  }
  const std::string& last = pieces_.back();
  if (session.size() < pieces_[0].size() + last.size() || !session.starts_with(pieces_[0]) ||
      !session.ends_with(last)) {
    return false;
  }
  session.remove_prefix(pieces_[0].size());
  session.remove_suffix(last.size());
  for (size_t i = 1; i + 1 < pieces_.size(); ++i) {
    const size_t at = session.find(pieces_[i]);
    if (at == std::string_view::npos) {
      return false;
    }
    session.remove_prefix(at + pieces_[i].size());
  }
  return true;
}

}  // namespace creel
