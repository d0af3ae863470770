#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "creel/shim/v1/files.pb.h"

namespace creel::shim {

// The longest path that a caller may give; the kernel's limit.
inline constexpr size_t kMaxPath = 4095;
// How far the paths of a tree are followed where they are told to the caller.
inline constexpr size_t kMaxTreePath = size_t{16} * 1024;

// Empty, too long, or with a NUL inside: kInvalidArgument.
absl::Status CheckPath(std::string_view path);

// A path for people: in quotes, what is not printable ASCII or UTF-8 escaped, cut at 300 bytes.
std::string Quoted(std::string_view path);

// The parts between slashes; empty ones and `.` are left out, `..` is kept.
std::vector<std::string> Components(std::string_view path);

// Joins with a slash; either may be empty.
std::string JoinPath(std::string_view directory, std::string_view name);

// The Status of a failed system call on a path, in the terms of shim.proto: the wrong kind of
// thing is kFailedPrecondition, as is a loop of links. `what` is a verb such as "open".
absl::Status PathError(int error, std::string_view what, std::string_view path);

// "a fifo", "a directory", ….
std::string_view KindName(mode_t mode);

v1::FileType TypeOf(mode_t mode);

// Fills in all but `link_target`.
v1::FileInfo InfoOf(const struct stat& stat, std::string_view path);

// Where the link `name` in `dir` points; empty if it cannot be read.
std::string ReadLink(int dir, const std::string& name);

}  // namespace creel::shim
