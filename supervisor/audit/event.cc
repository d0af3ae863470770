#include "supervisor/audit/event.h"

namespace creel {
namespace {

constexpr size_t kMaxItems = 1000;
// What is kept of a text until it is written: enough that a secret at the cut is still masked
// whole.
constexpr size_t kSlack = 4096;

}  // namespace

AuditEvent& AuditEvent::Text(const char* key, std::string_view value, size_t max_bytes) {
  if (!value.empty()) {
    fields_.push_back({.key = key,
                       .text = std::string(value.substr(0, max_bytes + kSlack)),
                       .max_bytes = max_bytes});
  }
  return *this;
}

AuditEvent& AuditEvent::Number(const char* key, int64_t value) {
  fields_.push_back({.key = key, .type = Field::Type::kNumber, .number = value});
  return *this;
}

AuditEvent& AuditEvent::List(const char* key, const std::vector<std::string>& values) {
  Field field{.key = key, .type = Field::Type::kList, .max_bytes = 256};
  for (size_t i = 0; i < values.size() && i < kMaxItems; ++i) {
    field.list.push_back(values[i].substr(0, 256 + kSlack));
  }
  if (values.size() > kMaxItems) {
    field.list.push_back("and " + std::to_string(values.size() - kMaxItems) + " more");
  }
  fields_.push_back(std::move(field));
  return *this;
}

}  // namespace creel
