#include "supervisor/web/record_tail.h"

#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <optional>
#include <utility>

#include "supervisor/audit/line.h"
#include "supervisor/audit/record_files.h"

namespace creel::web {
namespace {

// How long a stop may have to wait, and how lines that come fast are taken together.
constexpr std::chrono::milliseconds kLook{200};
constexpr std::chrono::milliseconds kGather{40};
constexpr std::chrono::milliseconds kAgain{500};

}  // namespace

RecordTail::RecordTail(AuditLog& audit, OnLine on_line)
    : audit_(audit), on_line_(std::move(on_line)), seen_(audit.head().seq) {
  thread_ = std::thread([this] { Work(); });
}

RecordTail::~RecordTail() { Stop(); }

void RecordTail::Stop() {
  stop_ = true;
  if (thread_.joinable()) {
    thread_.join();
  }
}

void RecordTail::Work() {
  prctl(PR_SET_NAME, "creel-web-tail");
  std::optional<RecordFile> file;
  std::optional<LineReader> reader;
  while (!stop_) {
    if (!audit_.WaitBeyond(seen_, After(kLook))) {
      continue;
    }
    std::this_thread::sleep_for(kGather);
    const uint64_t before = seen_;
    while (reader && !stop_) {
      const std::optional<std::string_view> line = reader->Next();
      if (!line) {
        break;
      }
      const std::optional<LineFrame> frame = ParseFrame(*line);
      if (frame && frame->seq > seen_) {
        seen_ = frame->seq;
        on_line_(*line);
      }
    }
    if (seen_ != before) {
      continue;
    }
    // What is wanted stands in a later file, or in the first one to be read.
    const absl::StatusOr<std::vector<RecordFile>> files = ListRecordFiles(audit_.directory());
    if (files.ok() && !files->empty()) {
      // The last that begins at or before it.
      auto next = std::find_if(files->begin(), files->end(), [this](const RecordFile& each) {
        return each.first_seq > seen_ + 1;
      });
      next = next == files->begin() ? next : std::prev(next);
      if (next != files->end() && (!file || next->path != file->path)) {
        file = *next;
        reader.reset();
        if (auto opened = LineReader::Open(file->path); opened.ok()) {
          reader.emplace(*std::move(opened));
          continue;
        }
        file.reset();
      }
    }
    // Written, and not to be found: not again at once.
    std::this_thread::sleep_for(kAgain);
  }
}

}  // namespace creel::web
