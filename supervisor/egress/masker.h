#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "supervisor/base/secret_forms.h"

namespace creel::egress {

// Secrets, in all their forms (FormsOf), made ready to be looked for all at once in one pass over a
// text, whatever it holds (the automaton of Aho and Corasick). Immutable.
class SecretTree {
 public:
  // What is shorter than this is too common to be looked for.
  static constexpr size_t kShortest = 4;

  explicit SecretTree(const std::vector<std::string>& secrets);

  // Where a reader stands: behind the longest end of what it has read that begins a secret.
  using Place = uint32_t;
  static constexpr Place kStart = 0;

  [[nodiscard]] Place Next(Place from, unsigned char byte) const;
  // Whether `byte` leads anywhere from the start.
  [[nodiscard]] bool Begins(unsigned char byte) const { return first_[byte] != kStart; }
  // How many bytes were read that may become a secret.
  [[nodiscard]] size_t Depth(Place place) const { return nodes_[place].depth; }
  // The length of the longest secret that has ended here; 0: none has.
  [[nodiscard]] size_t Match(Place place) const { return nodes_[place].match; }
  [[nodiscard]] bool empty() const { return nodes_.size() == 1; }

 private:
  struct Node {
    Place child = kStart;    // the first of them
    Place sibling = kStart;  // the next
    Place shorter = kStart;  // that of the longest end of this which begins a secret
    uint32_t depth = 0;
    uint32_t match = 0;
    unsigned char byte = 0;
  };

  [[nodiscard]] Place ChildOf(Place place, unsigned char byte) const;
  void Add(std::string_view secret);

  std::vector<Node> nodes_{Node()};
  std::array<Place, 256> first_{};
};

// Puts asterisks in place of secrets in a stream that comes in pieces. Each occurrence is replaced
// by as many bytes, so lengths stay what they were said to be.
class Masker {
 public:
  explicit Masker(std::shared_ptr<const SecretTree> secrets) : secrets_(std::move(secrets)) {}
  explicit Masker(const std::vector<std::string>& secrets)
      : Masker(std::make_shared<const SecretTree>(secrets)) {}

  // Appends to `out` what can be passed on now. Only bytes that may be the beginning of a secret
  // are held back until more has come.
  void Feed(std::string_view in, std::string& out);
  // Nothing came for a while: appends what is held back where that is less than the shortest
  // secret. Should it prove to have begun one, the rest of that is still covered.
  void Release(std::string& out);
  [[nodiscard]] bool CanRelease() const {
    return held_.size() > passed_ && held_.size() < SecretTree::kShortest;
  }
  // Nothing more comes: appends what was held back.
  void Finish(std::string& out);

  [[nodiscard]] std::string Masked(std::string_view text) const;

 private:
  std::shared_ptr<const SecretTree> secrets_;
  SecretTree::Place place_ = SecretTree::kStart;
  // What may be the beginning of a secret, as it is to be passed on.
  std::string held_;
  size_t passed_ = 0;  // so many of its bytes were
};

}  // namespace creel::egress
