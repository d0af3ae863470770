#include "supervisor/egress/masker.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "supervisor/egress/target.h"

namespace creel::egress {
namespace {

bool IsUnreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~").find(c) != std::string_view::npos;
}

std::string Hex(char c, bool upper) {
  const char* const digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  const auto byte = static_cast<unsigned char>(c);
  return {digits[byte >> 4], digits[byte & 15]};
}

template <typename Escape>
std::string Escaped(std::string_view value, const Escape& escape) {
  std::string out;
  for (const char c : value) {
    out += escape(c);
  }
  return out;
}

}  // namespace

SecretTree::SecretTree(const std::vector<std::string>& secrets) {
  for (const std::string& each : secrets) {
    if (each.size() >= kShortest) {
      Add(each);
    }
  }
  for (Place child = nodes_[kStart].child; child != kStart; child = nodes_[child].sibling) {
    first_[nodes_[child].byte] = child;
  }
  // Level by level: those that `shorter` leads to are nearer to the start.
  std::vector<Place> level{kStart};
  for (size_t i = 0; i < level.size(); ++i) {
    const Place parent = level[i];
    for (Place child = nodes_[parent].child; child != kStart; child = nodes_[child].sibling) {
      Node& node = nodes_[child];
      node.shorter = parent == kStart ? kStart : Next(nodes_[parent].shorter, node.byte);
      node.match = std::max(node.match, nodes_[node.shorter].match);
      level.push_back(child);
    }
  }
}

void SecretTree::Add(std::string_view secret) {
  Place place = kStart;
  for (const char c : secret) {
    const auto byte = static_cast<unsigned char>(c);
    Place next = ChildOf(place, byte);
    if (next == kStart) {
      next = static_cast<Place>(nodes_.size());
      nodes_.push_back(
          {.sibling = nodes_[place].child, .depth = nodes_[place].depth + 1, .byte = byte});
      nodes_[place].child = next;
    }
    place = next;
  }
  nodes_[place].match = nodes_[place].depth;
}

SecretTree::Place SecretTree::ChildOf(Place place, unsigned char byte) const {
  Place child = nodes_[place].child;
  while (child != kStart && nodes_[child].byte != byte) {
    child = nodes_[child].sibling;
  }
  return child;
}

SecretTree::Place SecretTree::Next(Place from, unsigned char byte) const {
  for (; from != kStart; from = nodes_[from].shorter) {
    if (const Place child = ChildOf(from, byte); child != kStart) {
      return child;
    }
  }
  return first_[byte];
}

void Masker::Feed(std::string_view in, std::string& out) {
  if (secrets_->empty()) {
    out.append(in);
    return;
  }
  std::string text = std::move(held_);
  size_t i = text.size();
  text.append(in);
  size_t begin = 0;  // of what was covered last
  size_t end = 0;
  for (; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (place_ == SecretTree::kStart && !secrets_->Begins(byte)) {
      continue;
    }
    place_ = secrets_->Next(place_, byte);
    const size_t match = secrets_->Match(place_);
    if (match == 0) {
      continue;
    }
    // The tree knows what was read; the text is free to be covered. All of it once, though secrets
    // may overlap.
    const size_t from = i + 1 - match;
    const bool known = end == i && begin <= from;
    std::fill(text.begin() + static_cast<std::ptrdiff_t>(known ? i : from),
              text.begin() + static_cast<std::ptrdiff_t>(i + 1), '*');
    begin = known ? begin : from;
    end = i + 1;
  }
  const size_t decided = text.size() - secrets_->Depth(place_);
  // What is covered stays so, whatever comes.
  size_t go = std::max(decided, passed_);
  while (go < text.size() && text[go] == '*') {
    ++go;
  }
  out.append(text, passed_, go - passed_);
  passed_ = go - decided;
  held_.assign(text, decided);
}

void Masker::Release(std::string& out) {
  if (CanRelease()) {
    out.append(held_, passed_);
    passed_ = held_.size();
  }
}

void Masker::Finish(std::string& out) {
  out.append(held_, passed_);
  held_.clear();
  passed_ = 0;
  place_ = SecretTree::kStart;
}

std::string Masker::Masked(std::string_view text) const {
  Masker once(secrets_);
  std::string out;
  once.Feed(text, out);
  once.Finish(out);
  return out;
}

std::vector<std::string> FormsOf(std::string_view value) {
  std::vector<std::string> forms{std::string(value), PercentEncoded(value), Base64(value)};
  // In the middle of something longer, base64 has three ways to write it; the characters at both
  // ends depend on the neighbours too.
  for (size_t shift = 0; shift < 3; ++shift) {
    const std::string coded = Base64(std::string(shift, 'x') + std::string(value));
    const size_t begin = shift == 0 ? 0 : shift + 1;
    const size_t end = (shift + value.size()) * 8 / 6;
    forms.push_back(coded.substr(begin, end - begin));
  }
  for (size_t i = 2, count = forms.size(); i < count; ++i) {
    std::string url_safe = forms[i];
    std::replace(url_safe.begin(), url_safe.end(), '+', '-');
    std::replace(url_safe.begin(), url_safe.end(), '/', '_');
    forms.push_back(std::move(url_safe));
  }
  // Percent-encoding, as libraries differ in it: of `/` or not, a space as `+`, in either case.
  for (const std::string_view plain : {"", "/"}) {
    for (const std::string_view space : {"%20", "+"}) {
      for (const bool upper : {true, false}) {
        forms.push_back(Escaped(value, [&](char c) -> std::string {
          if (IsUnreserved(c) || plain.find(c) != std::string_view::npos) {
            return {c};
          }
          return c == ' ' ? std::string(space) : "%" + Hex(c, upper);
        }));
      }
    }
  }
  for (const bool upper : {true, false}) {
    forms.push_back(Escaped(value, [&](char c) { return Hex(c, upper); }));
  }
  // JSON, with and without `\/`; Go's, and others made for HTML, write \u0026 too, in either case.
  for (const std::string_view slashed : {"\"\\/", "\"\\"}) {
    for (const std::string_view coded : {"", "<>&", "<>&'", "<>&'\"+"}) {
      for (const bool upper : {true, false}) {
        forms.push_back(Escaped(value, [&](char c) -> std::string {
          if (coded.find(c) != std::string_view::npos) {
            return "\\u00" + Hex(c, upper);
          }
          return slashed.find(c) != std::string_view::npos ? std::string("\\") + c
                                                           : std::string(1, c);
        }));
      }
    }
  }
  // HTML, whose two quotes have several names.
  for (const std::string_view quote : {"&quot;", "&#34;", "\""}) {
    for (const std::string_view apostrophe : {"&#39;", "&#x27;", "&apos;", "'"}) {
      forms.push_back(Escaped(value, [&](char c) {
        return std::string(c == '&'    ? "&amp;"
                           : c == '<'  ? "&lt;"
                           : c == '>'  ? "&gt;"
                           : c == '"'  ? quote
                           : c == '\'' ? apostrophe
                                       : std::string_view(&c, 1));
      }));
    }
  }
  std::sort(forms.begin(), forms.end());
  forms.erase(std::unique(forms.begin(), forms.end()), forms.end());
  return forms;
}

}  // namespace creel::egress
