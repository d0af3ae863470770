#include "supervisor/sandbox/shim_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "supervisor/base/crypto.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/sandbox/dir_tree.h"

namespace creel {
namespace {

constexpr size_t kMaxShimBytes = 64u << 20;

std::string HashOf(std::string_view content) {
  Sha256 hash;
  hash.Update(content);
  return Hex(hash.Finish());
}

}  // namespace

absl::StatusOr<StoredShim> StoreShim(const std::string& binary, const std::string& state_dir) {
  // The path is the operator's own choice, links in it included.
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(binary.c_str(), nullptr),
                                                         &std::free);
  if (real == nullptr) {
    return ErrnoStatus(errno, fmt::format("the shim's binary '{}' (paths.shim)", binary));
  }
  // Read once: what is hashed is what is written.
  auto content = ReadWholeFile(real.get(), kMaxShimBytes);
  if (!content.ok()) {
    return Annotate(content.status(), "the shim's binary (paths.shim)");
  }
  if (content->empty()) {
    return absl::InvalidArgumentError(fmt::format("the shim's binary '{}' is empty", binary));
  }
  StoredShim stored;
  stored.sha256 = HashOf(*content);
  const std::string parent = state_dir + "/shim";
  const std::string directory = parent + "/" + stored.sha256;
  stored.path = directory + "/creel-shim";
  RETURN_IF_ERROR(MakeDirectories(parent, 0711));
  RETURN_IF_ERROR(MakeDirectories(directory, 0755));
  if (auto present = ReadWholeFile(stored.path, kMaxShimBytes);
      present.ok() && HashOf(*present) == stored.sha256) {
    return stored;
  }
  RETURN_IF_ERROR(WriteWholeFile(stored.path, *content, 0755));
  if (::chmod(stored.path.c_str(), 0755) != 0) {
    return ErrnoStatus(errno, fmt::format("set the mode of '{}'", stored.path));
  }
  return stored;
}

}  // namespace creel
