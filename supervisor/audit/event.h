#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace creel {

// Something that happened, on its way into the record: a kind and what is known of it. Values may
// be of any origin; they are masked, made printable and cut when they are written.
class AuditEvent {
 public:
  // `kind` is lower-case words with dots, such as `call.allowed`.
  explicit AuditEvent(std::string_view kind) : kind_(kind) {}

  // Keys are literals of ours. Empty text is left out. Longer text is cut to `max_bytes`.
  AuditEvent& Text(const char* key, std::string_view value, size_t max_bytes = 512);
  AuditEvent& Number(const char* key, int64_t value);
  // A list of texts, each cut to 256 bytes; of more than 1000 the rest is left out, and how many
  // they were is told.
  AuditEvent& List(const char* key, const std::vector<std::string>& values);

  [[nodiscard]] const std::string& kind() const { return kind_; }

 private:
  friend class LineWriter;
  struct Field {
    const char* key;
    enum class Type { kText, kNumber, kList } type = Type::kText;
    std::string text{};
    size_t max_bytes = 0;
    int64_t number = 0;
    std::vector<std::string> list{};
  };

  std::string kind_;
  std::vector<Field> fields_;
};

}  // namespace creel
