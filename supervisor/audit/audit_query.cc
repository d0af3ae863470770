#include "supervisor/audit/audit_query.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <utility>

#include "supervisor/audit/line.h"
#include "supervisor/base/escape.h"

namespace creel {
namespace {

// As AuditEvent::Text keeps it, unless told otherwise.
constexpr size_t kMaxText = 512;

// The record has the value as it can be printed.
bool Says(std::string_view line, std::string_view key, const std::string& value) {
  return line.find(FieldPattern(key, Printable(value, kMaxText))) != std::string_view::npos;
}

}  // namespace

void AuditQuery::FindMasked(const AuditLog& log) {
  const auto find = [&](const std::string& value) {
    if (std::string instead = log.Masked(value); instead != value) {
      masked[value] = std::move(instead);
    }
  };
  for (const std::string* value : {&session, &sender, &sandbox, &tool}) {
    find(*value);
  }
  std::for_each(any_session.begin(), any_session.end(), find);
}

bool AuditQuery::Has(std::string_view line, std::string_view key, const std::string& value) const {
  const auto instead = masked.find(value);
  return Says(line, key, value) || (instead != masked.end() && Says(line, key, instead->second));
}

// A quote in a value is escaped, so that no value can look like a key with another value.
bool AuditQuery::Fits(std::string_view line) const {
  const std::optional<LineFrame> frame = ParseFrame(line);
  if (!frame || frame->seq <= after_seq) {
    return false;
  }
  if ((!since.empty() && frame->at < since) || (!until.empty() && frame->at >= until)) {
    return false;
  }
  if (!event.empty() && frame->event != event &&
      !(event.back() == '.' && frame->event.starts_with(event))) {
    return false;
  }
  for (const auto& [key, value] :
       {std::pair("session", &session), std::pair("sender", &sender),
        std::pair("sandbox", &sandbox), std::pair("tool", &tool), std::pair("verdict", &verdict),
        std::pair("incident", &incident)}) {
    if (!value->empty() && !Has(line, key, *value)) {
      return false;
    }
  }
  if (any_session.empty() && any_sandbox.empty()) {
    return true;
  }
  const auto of = [this, &line](const char* key) {
    return [this, &line, key](const std::string& value) { return Has(line, key, value); };
  };
  return std::any_of(any_session.begin(), any_session.end(), of("session")) ||
         std::any_of(any_sandbox.begin(), any_sandbox.end(), of("sandbox"));
}

absl::Status AuditReader::OpenNext() {
  ASSIGN_OR_RETURN(const std::vector<RecordFile> files, ListRecordFiles(directory_));
  const auto next = std::find_if(files.begin(), files.end(), [this](const RecordFile& file) {
    return !file_ || file.first_seq > file_->first_seq;
  });
  newest_ = next == files.end() || std::next(next) == files.end();
  if (next == files.end()) {
    return absl::OkStatus();
  }
  // The old one may have grown until the new one was begun: what was read is all there was only if
  // a later file was there before the end was met.
  ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(next->path));
  reader_.emplace(std::move(reader));
  file_ = *next;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<std::string_view>> AuditReader::Next() {
  if (!reader_) {
    RETURN_IF_ERROR(OpenNext());
  }
  while (reader_) {
    while (const std::optional<std::string_view> line = reader_->Next()) {
      if (query_.Fits(*line)) {
        return line;
      }
    }
    if (!absl::IsDataLoss(reader_->status())) {
      RETURN_IF_ERROR(reader_->status());
    }
    if (newest_) {
      // Once more from here, should a later file have come: the present one is complete then.
      ASSIGN_OR_RETURN(const std::vector<RecordFile> files, ListRecordFiles(directory_));
      newest_ = files.empty() || files.back().first_seq <= file_->first_seq;
      if (newest_) {
        return std::nullopt;
      }
      continue;
    }
    const uint64_t before = file_->first_seq;
    RETURN_IF_ERROR(OpenNext());
    if (file_->first_seq == before) {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

absl::StatusOr<std::vector<std::string>> NewestRecords(const std::string& directory,
                                                       const AuditQuery& query, size_t limit) {
  AuditReader reader(directory, query);
  std::deque<std::string> newest;
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<std::string_view> line, reader.Next());
    if (!line) {
      return std::vector<std::string>(std::make_move_iterator(newest.begin()),
                                      std::make_move_iterator(newest.end()));
    }
    newest.emplace_back(*line);
    if (newest.size() > limit) {
      newest.pop_front();
    }
  }
}

}  // namespace creel
