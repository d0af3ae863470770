#include "agent-shim/files/glob_pattern.h"

#include <fmt/format.h>

#include "agent-shim/files/paths.h"

namespace creel::shim {
namespace {

constexpr size_t kMaxParts = 60;

// The next character: a code point where the bytes are UTF-8, else one byte. Sets `length`.
uint32_t NextCharacter(std::string_view text, size_t* length) {
  const auto lead = static_cast<unsigned char>(text[0]);
  size_t expected = 1;
  uint32_t code = lead;
  if ((lead & 0xe0U) == 0xc0U) {
    expected = 2;
    code = lead & 0x1fU;
  } else if ((lead & 0xf0U) == 0xe0U) {
    expected = 3;
    code = lead & 0x0fU;
  } else if ((lead & 0xf8U) == 0xf0U) {
    expected = 4;
    code = lead & 0x07U;
  }
  *length = 1;
  if (expected > text.size()) {
    return lead;
  }
  for (size_t i = 1; i < expected; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte & 0xc0U) != 0x80U) {
      return lead;
    }
    code = code << 6U | (byte & 0x3fU);
  }
  *length = expected;
  return code;
}

// Matches one character against the set at the front of `pattern`, which starts behind the `[`.
// Sets `used` to the length of the set with its `]`; 0 if it has none.
bool MatchesSet(std::string_view pattern, uint32_t character, size_t* used) {
  size_t at = 0;
  const bool negated = !pattern.empty() && (pattern[0] == '!' || pattern[0] == '^');
  if (negated) {
    ++at;
  }
  bool matched = false;
  bool first = true;
  const auto take = [&] {
    if (pattern[at] == '\\' && at + 1 < pattern.size()) {
      ++at;
    }
    size_t length = 0;
    const uint32_t code = NextCharacter(pattern.substr(at), &length);
    at += length;
    return code;
  };
  *used = 0;
  while (at < pattern.size()) {
    if (pattern[at] == ']' && !first) {
      *used = at + 1;
      return matched != negated;
    }
    first = false;
    const uint32_t low = take();
    uint32_t high = low;
    if (at + 1 < pattern.size() && pattern[at] == '-' && pattern[at + 1] != ']') {
      ++at;
      high = take();
    }
    matched = matched || (low <= character && character <= high);
  }
  return false;
}

bool WellFormed(std::string_view part) {
  for (size_t i = 0; i < part.size(); ++i) {
    if (part[i] == '\\') {
      if (++i == part.size()) {
        return false;
      }
    } else if (part[i] == '[') {
      size_t used = 0;
      MatchesSet(part.substr(i + 1), 0, &used);
      if (used == 0) {
        return false;
      }
      i += used;
    }
  }
  return true;
}

}  // namespace

bool MatchesName(std::string_view pattern, std::string_view name) {
  size_t p = 0;
  size_t n = 0;
  // Where to go on if the last `*` has to take one character more.
  size_t star = std::string_view::npos;
  size_t star_name = 0;
  while (true) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = ++p;
      star_name = n;
      continue;
    }
    if (n == name.size()) {
      return p == pattern.size();
    }
    bool matched = false;
    if (p < pattern.size()) {
      size_t length = 0;
      const uint32_t character = NextCharacter(name.substr(n), &length);
      size_t used = 1;
      if (pattern[p] == '?') {
        matched = true;
      } else if (pattern[p] == '[') {
        matched = MatchesSet(pattern.substr(p + 1), character, &used);
        ++used;
      } else {
        const size_t escape = pattern[p] == '\\' && p + 1 < pattern.size() ? 1 : 0;
        matched = pattern[p + escape] == name[n];
        used = 1 + escape;
        length = 1;
      }
      if (matched) {
        p += used;
        n += length;
      }
    }
    if (!matched) {
      if (star == std::string_view::npos) {
        return false;
      }
      p = star;
      n = ++star_name;
    }
  }
}

absl::StatusOr<GlobPattern> GlobPattern::Parse(std::string_view pattern, bool hidden) {
  GlobPattern glob;
  glob.hidden_ = hidden;
  glob.parts_ = Components(pattern);
  if (glob.parts_.empty()) {
    return absl::InvalidArgumentError("the glob is empty");
  }
  if (pattern.front() == '/') {
    return absl::InvalidArgumentError(
        fmt::format("the glob {} must be relative to the path", Quoted(pattern)));
  }
  if (glob.parts_.size() > kMaxParts || pattern.size() > kMaxPath) {
    return absl::InvalidArgumentError(
        fmt::format("the glob has more than {} parts or {} bytes", kMaxParts, kMaxPath));
  }
  for (const std::string& part : glob.parts_) {
    if (part == "..") {
      return absl::InvalidArgumentError("the glob holds '..'; give a higher path instead");
    }
    if (!WellFormed(part)) {
      return absl::InvalidArgumentError(fmt::format(
          "the glob {} has a '[' without ']', or ends in a backslash", Quoted(pattern)));
    }
  }
  return glob;
}

GlobPattern::Progress GlobPattern::Close(Progress progress) const {
  // A `**` may stand for no directory at all; as the last part it stands for at least one name.
  for (size_t i = 0; i + 1 < parts_.size(); ++i) {
    if ((progress >> i & 1U) != 0 && parts_[i] == "**") {
      progress |= Progress{1} << (i + 1);
    }
  }
  return progress;
}

GlobPattern::Progress GlobPattern::Start() const { return Close(1); }

GlobPattern::Progress GlobPattern::Step(Progress progress, std::string_view name) const {
  const bool dotted = !hidden_ && !name.empty() && name.front() == '.';
  Progress next = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    if ((progress >> i & 1U) == 0) {
      continue;
    }
    if (parts_[i] == "**") {
      if (!dotted) {
        next |= Progress{1} << i;
        next |= i + 1 == parts_.size() ? Progress{1} << (i + 1) : 0;
      }
    } else if ((!dotted || parts_[i].front() == '.') && MatchesName(parts_[i], name)) {
      next |= Progress{1} << (i + 1);
    }
  }
  return Close(next);
}

bool GlobPattern::Matches(Progress progress) const { return (progress >> parts_.size() & 1U) != 0; }

bool GlobPattern::MayMatchBelow(Progress progress) const {
  return (progress & ((Progress{1} << parts_.size()) - 1)) != 0;
}

bool GlobPattern::MatchesPath(std::string_view path) const {
  if (parts_.size() == 1 && parts_[0] != "**") {
    const size_t slash = path.rfind('/');
    return Matches(Step(Start(), slash == std::string_view::npos ? path : path.substr(slash + 1)));
  }
  Progress progress = Start();
  for (const std::string& name : Components(path)) {
    progress = Step(progress, name);
  }
  return Matches(progress);
}

}  // namespace creel::shim
