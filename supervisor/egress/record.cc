#include "supervisor/egress/record.h"

#include <fmt/format.h>

namespace creel::egress {

std::string LogLine(const Record& record) {
  const std::string what = fmt::format(
      "egress {} {} sandbox={} session=\"{}\" level={} rule=\"{}\" {} {} {}{}", record.number,
      record.phase == Record::Phase::kEnded ? "ended"
      : record.allowed                      ? "allowed"
                                            : "refused",
      record.sandbox, record.session, record.level, record.rule, record.kind, record.method,
      record.target, record.path);
  const std::string why = record.reason.empty() ? "" : fmt::format(" reason=\"{}\"", record.reason);
  if (record.phase == Record::Phase::kDecided) {
    return what + why;
  }
  return fmt::format("{} status={} up={} down={} ms={:.2f}{}", what, record.status, record.bytes_up,
                     record.bytes_down, static_cast<double>(record.took.count()) / 1000, why);
}

}  // namespace creel::egress
