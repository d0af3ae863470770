#include "supervisor/policy/reply_guard.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "supervisor/policy/key_finder.h"
#include "supervisor/policy/listing_finder.h"

namespace creel {
namespace {

// What is put in the place of something.
std::string_view Mask(std::string_view kind) {
  return kind == "secret.known"     ? "[withheld: secret]"
         : kind.starts_with("key.") ? "[withheld: key]"
         : kind == "listing"        ? "[withheld: directory listing]"
                                    : "[withheld: path]";
}

struct Sentence {
  std::string rule;
  std::string what;
};

// By the worst of what was found.
Sentence Describe(const std::map<std::string, uint32_t>& counts) {
  const auto any = [&](std::string_view prefix) {
    return std::any_of(counts.begin(), counts.end(),
                       [&](const auto& entry) { return entry.first.starts_with(prefix); });
  };
  if (any("secret.")) {
    return {"reply.secrets", "a known secret"};
  }
  if (any("key.")) {
    return {"reply.keys", "something shaped like a key"};
  }
  return any("listing") ? Sentence{"reply.listings", "a directory listing"}
                        : Sentence{"reply.paths", "a path of the host"};
}

}  // namespace

ReplyGuard::ReplyGuard(const std::vector<std::string>& secrets, std::vector<std::string> folders,
                       OnSecret on_secret)
    : secrets_(secrets), folders_(std::move(folders)), on_secret_(on_secret) {}

ReplyAnswer ReplyGuard::Check(std::string_view text, const ReplyRules& rules) const {
  ReplyAnswer answer;
  if (rules.denied) {
    answer.rule = rules.rule;
    answer.reason = rules.reason;
    return answer;
  }
  Spans spans;
  secrets_.Find(text, spans);
  if (rules.mask_keys) {
    FindKeys(text, spans);
    std::string visible;
    std::vector<uint32_t> places;
    if (WithoutInvisible(text, visible, places)) {
      Spans there;
      FindKeys(visible, there);
      for (const Span& span : there) {
        spans.push_back({places[span.begin], places[span.end - 1] + size_t{1}, span.kind});
      }
    }
  }
  if (rules.mask_paths) {
    FindHostPaths(text, folders_, spans);
  }
  if (rules.mask_listings) {
    FindListings(text, spans);
  }
  if (spans.empty()) {
    answer.verdict = ReplyVerdict::kAllow;
    answer.text = text;
    answer.rule = "reply.clean";
    answer.reason = "nothing was found that must not leave";
    return answer;
  }
  // What overlaps is one piece, called by what begins first or, there, reaches farthest.
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
  // Both looks for keys find most of them.
  const auto same = [](const Span& a, const Span& b) {
    return a.begin == b.begin && a.end == b.end && std::string_view(a.kind) == b.kind;
  };
  spans.erase(std::unique(spans.begin(), spans.end(), same), spans.end());
  std::map<std::string, uint32_t> counts;
  for (const Span& span : spans) {
    ++counts[span.kind];
  }
  for (const auto& [kind, count] : counts) {
    answer.findings.push_back({kind, count});
  }
  const Sentence said = Describe(counts);
  answer.rule = said.rule;
  if (counts.contains("secret.known") && on_secret_ == OnSecret::kDeny) {
    answer.reason = fmt::format("the reply held {} and was not sent", said.what);
    return answer;
  }
  answer.verdict = ReplyVerdict::kRedact;
  answer.reason = fmt::format("the reply held {}, which was withheld", said.what);
  answer.text.reserve(text.size());
  size_t done = 0;
  for (size_t i = 0; i < spans.size();) {
    size_t end = spans[i].end;
    const char* const kind = spans[i].kind;
    const size_t begin = spans[i].begin;
    for (++i; i < spans.size() && spans[i].begin < end; ++i) {
      end = std::max(end, spans[i].end);
    }
    answer.text += text.substr(done, begin - done);
    answer.text += Mask(kind);
    done = end;
  }
  answer.text += text.substr(done);
  return answer;
}

}  // namespace creel
