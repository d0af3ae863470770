#include "supervisor/egress/masker.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace creel::egress {
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

}  // namespace creel::egress
