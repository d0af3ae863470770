#pragma once

#include <sys/stat.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/audit/signing_key.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"

namespace creel {

// Writes a bundle of evidence: see bundle_format.h. What it is given may be hostile in every way
// but the descriptors, which the caller has opened safely. Not thread-safe.
class BundleWriter {
 public:
  struct Options {
    std::string path{};  // written as `path`.new until it is finished
    std::string incident{};
    std::string install_id{};
    std::shared_ptr<const SigningKey> key;
    // Of all that goes in, before it is compressed.
    uint64_t max_bytes = 4ull << 30;
    // Bytes that the disk has to spare. Asked before each member, which is cut to it.
    std::function<uint64_t()> room{};
    // What comes later is left out.
    Deadline deadline = Deadline::max();
    std::chrono::system_clock::time_point now{};
  };
  struct Finished {
    uint64_t bytes = 0;
    std::string sha256{};  // of the whole file, in hex
    uint64_t members = 0;
    std::vector<std::string> left_out{};
  };

  static absl::StatusOr<std::unique_ptr<BundleWriter>> Create(Options options);
  // Without Finish nothing stays.
  virtual ~BundleWriter() = default;

  // Something of our own, as a regular file.
  virtual absl::Status AddText(const std::string& name, std::string_view content) = 0;
  // A regular file that `fd` is open for reading, with its holes. What does not fit is left out.
  virtual absl::Status AddFile(const std::string& name, const struct stat& info, int fd) = 0;
  // Anything else by its kind, owner, mode and times alone. `link` is where a link leads.
  virtual absl::Status AddOther(const std::string& name, const struct stat& info,
                                const std::string& link) = 0;
  // Tells that something is not in it, and why. The first thousand are kept.
  virtual void LeftOut(const std::string& what) = 0;
  // Whether more can be taken in; tells why not, once.
  virtual bool Open() = 0;

  // Adds the manifest, seals and renames.
  virtual absl::StatusOr<Finished> Finish() = 0;
};

}  // namespace creel
