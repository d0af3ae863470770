#include "supervisor/audit/verify.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "supervisor/audit/line.h"
#include "supervisor/audit/record_files.h"
#include "supervisor/audit/signing_key.h"
#include "supervisor/base/escape.h"

namespace creel {
namespace {

uint64_t NumberOf(std::string_view line, std::string_view key) {
  const std::optional<std::string> text = FieldOf(line, key);
  return text ? std::strtoull(text->c_str(), nullptr, 10) : 0;
}

std::string TextOf(std::string_view line, std::string_view key) {
  return Printable(FieldOf(line, key).value_or(""), 256);
}

std::optional<std::string> FromHex(std::string_view hex) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    const int high = digit(hex[i]);
    const int low = digit(hex[i + 1]);
    if (high < 0 || low < 0) {
      return {};
    }
    bytes += static_cast<char>(high * 16 + low);
  }
  return hex.size() % 2 == 0 ? std::optional(bytes) : std::nullopt;
}

class Verifier {
 public:
  Verifier(const VerifyOptions& options, bool whole) : options_(options), whole_(whole) {
    for (const std::string& key : options.public_keys) {
      keys_[KeyId(key)] = key;
    }
  }

  // False once something is wrong.
  bool File(const RecordFile& file, bool newest, absl::Status& unreadable) {
    absl::StatusOr<LineReader> reader = LineReader::Open(file.path);
    if (!reader.ok()) {
      unreadable = reader.status();
      return false;
    }
    report_.file = file.name;
    report_.line = 0;
    if (file.first_seq != 0 && !Begins(file)) {
      return false;
    }
    while (const std::optional<std::string_view> line = reader->Next()) {
      ++report_.line;
      if (!Line(*line)) {
        return false;
      }
    }
    if (!reader->status().ok()) {
      if (absl::IsDataLoss(reader->status())) {
        return Bad(next_, "is longer than any record");
      }
      unreadable = reader->status();
      return false;
    }
    if (const size_t torn = reader->rest().size(); torn > 0) {
      if (!newest) {
        ++report_.line;
        return Bad(next_, "has no end of line, and is not the newest");
      }
      report_.notes.push_back(fmt::format(
          "the last {} bytes of '{}' are half a line: one that is being written now, or that a "
          "crash tore",
          torn, file.name));
    }
    return true;
  }

  VerifyReport Finish() {
    if (report_.problem.empty()) {
      AtEnd();
    }
    if (report_.problem.empty()) {
      report_.sound = true;
      report_.file.clear();
      report_.line = 0;
    }
    if (keys_.empty() && report_.checkpoints > 0) {
      report_.notes.emplace_back("no public key was given: signatures were not checked");
    }
    if (!options_.head) {
      report_.notes.emplace_back(
          "the newest record is not known from elsewhere: an end that was cut off does not show");
    }
    return std::move(report_);
  }

 private:
  bool Bad(uint64_t seq, std::string what) {
    report_.bad_seq = seq;
    report_.problem = fmt::format("record {} {}", seq, what);
    return false;
  }

  bool Begins(const RecordFile& file) {
    if (report_.records == 0) {
      next_ = file.first_seq;
      return true;
    }
    if (file.first_seq < next_) {
      return Bad(file.first_seq,
                 fmt::format("stands twice: '{}' begins with it, though record {} came before it",
                             file.name, next_ - 1));
    }
    if (file.first_seq > next_) {
      return Bad(next_,
                 fmt::format("is missing: '{}' begins with record {}", file.name, file.first_seq));
    }
    return true;
  }

  bool Line(std::string_view line) {
    const std::optional<LineFrame> frame = ParseFrame(line);
    if (report_.records == 0 && frame && report_.first_seq == 0) {
      if (next_ == 0) {
        next_ = frame->seq;  // an exported file begins anywhere
      }
      report_.first_seq = next_;
      previous_ = std::string(frame->prev);
      if (next_ == 1 && frame->prev != kNoHash) {
        return Bad(1, "was changed: it names a record before it");
      }
      first_prev_ = previous_;
    }
    if (!frame) {
      return Bad(std::max<uint64_t>(next_, 1), "was changed: its line is no record");
    }
    if (!HashFits(line, *frame)) {
      return Bad(next_, "was changed: its hash does not fit");
    }
    if (frame->seq > next_) {
      return Bad(next_,
                 fmt::format("is missing or was moved: record {} stands in its place", frame->seq));
    }
    if (frame->seq < next_) {
      return Bad(next_, fmt::format("is displaced: record {} was put in once more, or moved here",
                                    frame->seq));
    }
    if (frame->prev != previous_) {
      return Bad(next_ - 1, fmt::format("is not the one that record {} was written after: one of "
                                        "them was changed and got a new hash",
                                        next_));
    }
    return Known(line, *frame);
  }

  // A line that is where it belongs.
  bool Known(std::string_view line, const LineFrame& frame) {
    if (options_.head && frame.seq == options_.head->seq && frame.hash != options_.head->hash) {
      return Bad(frame.seq, "is another one than was written: its hash is known from elsewhere");
    }
    if (frame.event == "checkpoint" && !Checkpoint(line, frame)) {
      return false;
    }
    if (frame.event == "record.truncated") {
      return Bad(NumberOf(line, "first_missing"),
                 fmt::format("and those up to {} were gone at a start of creeld ({}), as record {} "
                             "tells",
                             NumberOf(line, "last_missing"), std::string(frame.at), frame.seq));
    }
    if (frame.event == "record.damaged") {
      return Bad(frame.seq,
                 fmt::format("tells of {} bytes after record {} that were no records; "
                             "they are kept in '{}'",
                             NumberOf(line, "bytes"), frame.seq - 1, TextOf(line, "moved_to")));
    }
    if (frame.event == "record.torn") {
      report_.notes.push_back(
          fmt::format("record {}: a crash left half a line of {} bytes; it is kept in '{}'",
                      frame.seq, NumberOf(line, "bytes"), TextOf(line, "moved_to")));
    } else if (frame.event == "record.resumed") {
      report_.notes.push_back(
          fmt::format("record {}: nothing could be written since {}; {} attempts were refused",
                      frame.seq, TextOf(line, "since"), NumberOf(line, "refused")));
      if (const uint64_t lost = NumberOf(line, "lost"); lost > 0) {
        report_.notes.push_back(fmt::format(
            "record {}: {} outcomes found no room in memory and are not told", frame.seq, lost));
      }
    } else if (frame.event == "record.removed") {
      removed_[NumberOf(line, "last")] = FieldOf(line, "last_hash").value_or("");
    }
    previous_ = std::string(frame.hash);
    next_ = frame.seq + 1;
    ++report_.records;
    report_.last_seq = frame.seq;
    report_.last_hash = previous_;
    return true;
  }

  bool Checkpoint(std::string_view line, const LineFrame& frame) {
    ++report_.checkpoints;
    if (!keys_.empty()) {
      const std::string id = FieldOf(line, "key").value_or("");
      const auto key = keys_.find(id);
      if (key == keys_.end()) {
        return Bad(frame.seq, fmt::format("is a checkpoint signed with a key that was not given "
                                          "({})",
                                          Printable(id, 32)));
      }
      const std::optional<std::string> signature = FromHex(FieldOf(line, "signature").value_or(""));
      if (!signature ||
          !SignatureFits(key->second, CheckpointMessage(frame.seq, frame.prev), *signature)) {
        return Bad(report_.last_checkpoint + 1,
                   fmt::format("or one of those up to {} was changed and all got new hashes: the "
                               "signature of checkpoint {} does not fit",
                               frame.seq, frame.seq));
      }
    }
    report_.last_checkpoint = frame.seq;
    return true;
  }

  void AtEnd() {
    if (report_.records == 0 && !options_.head) {
      report_.notes.emplace_back("there is no record");
      return;
    }
    const uint64_t first_missing = report_.records == 0 ? 1 : report_.last_seq + 1;
    if (options_.head && options_.head->seq >= first_missing) {
      Bad(first_missing, fmt::format("is missing, and all after it: record {} was the newest known",
                                     options_.head->seq));
      return;
    }
    if (report_.first_seq > 1) {
      const auto told = removed_.find(report_.first_seq - 1);
      if (told != removed_.end() && told->second == first_prev_) {
        report_.notes.push_back(
            fmt::format("records before {} were removed for their age, as the record tells",
                        report_.first_seq));
      } else if (whole_) {
        Bad(1, fmt::format("is missing, and all up to {}: nothing tells that they were removed for "
                           "their age",
                           report_.first_seq - 1));
      } else {
        report_.notes.push_back(fmt::format(
            "this begins with record {}; what was before is not here", report_.first_seq));
      }
    }
  }

  const VerifyOptions& options_;
  // The record as a whole is looked at, not a part that was exported.
  const bool whole_;
  std::map<std::string, std::string> keys_;
  VerifyReport report_;
  uint64_t next_ = 0;  // the seq that the next line must have
  std::string previous_;
  std::string first_prev_;
  std::map<uint64_t, std::string> removed_;  // last seq of a removed file, with its hash
};

}  // namespace

absl::StatusOr<VerifyReport> VerifyRecord(const std::string& path, const VerifyOptions& options) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    return ErrnoStatus(errno, fmt::format("open the record '{}'", path));
  }
  std::vector<RecordFile> files;
  const bool folder = S_ISDIR(info.st_mode);
  if (folder) {
    ASSIGN_OR_RETURN(files, ListRecordFiles(path));
  } else {
    files.push_back({.path = path, .name = path, .first_seq = 0});
  }
  Verifier verifier(options, folder);
  absl::Status unreadable;
  for (size_t i = 0; i < files.size(); ++i) {
    if (!verifier.File(files[i], i + 1 == files.size(), unreadable)) {
      RETURN_IF_ERROR(unreadable);
      break;
    }
  }
  return verifier.Finish();
}

}  // namespace creel
