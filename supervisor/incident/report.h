#pragma once

#include <string>
#include <vector>

#include "supervisor/audit/audit_log.h"
#include "supervisor/incident/incident.h"

namespace creel {

enum class ReportFormat { kMarkdown, kHtml };

// The story of an incident: what happened in what order, who asked, what was refused, what got out,
// what was frozen, which credentials were in use, and what to change. Everything in it that others
// chose (names, commands, output) is shown as text and never as markup.
absl::StatusOr<std::string> WriteReport(const Incident& incident, const AuditLog& audit,
                                        ReportFormat format);

// Text as it may stand in Markdown or HTML, each without a way to become markup.
std::string EscapeMarkdown(std::string_view text);
std::string EscapeHtml(std::string_view text);

}  // namespace creel
