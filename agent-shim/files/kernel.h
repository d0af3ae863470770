#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// openat2(2), for which glibc has no wrapper. Returns -1 with errno set on failure.
int Openat2(int dir, const char* path, int flags, uint64_t resolve);

// Whether openat2 failed because there is no such call here: gVisor, an old kernel, or a seccomp
// profile that knows nothing of it and answers EPERM.
bool Openat2IsMissing(int error);

// renameat2(2) with RENAME_NOREPLACE; where that is not to be had, by a second link (files) or a
// look beforehand (directories). 0, or -1 with errno set; EEXIST if `to` is there.
int RenameNoReplace(int from_dir, const std::string& from, int to_dir, const std::string& to);

// Makes a directory with exactly these permission bits, whatever the umask. False if a directory,
// or anything else, was there already. `path` is for messages.
absl::StatusOr<bool> MakeDirectoryAt(int dir, const std::string& name, mode_t mode,
                                     std::string_view path);

// Opens what `name` in `dir` is for reading or writing and makes sure that it is a regular file.
// Never waits: not for the other end of a fifo, and at most 200 ms for the holder of a lease to
// give it up. Follows no link. `flags` are those of open(2).
//   kFailedPrecondition  a directory, fifo, socket, device or link; a lease stands
absl::StatusOr<UniqueFd> OpenRegular(int dir, const std::string& name, int flags,
                                     std::string_view path, struct stat* stat);

// The same without any wait or message, for searches: an invalid descriptor if it cannot be had.
UniqueFd TryOpenRegular(int dir, const std::string& name, struct stat* stat);

// Opens a directory for reading its entries; follows no link.
absl::StatusOr<UniqueFd> OpenDirectory(int dir, const std::string& name, std::string_view path);

// Writes all of `data`. 0, or an errno.
int WriteAll(int fd, std::string_view data);

// Up to `size` bytes at `offset`, less only at the end of the file. -1 with errno set on failure.
ssize_t ReadAt(int fd, char* data, size_t size, uint64_t offset);

}  // namespace creel::shim
