#pragma once

#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace creel {

// A Status for a failed system call: `what` says what was tried, the kernel's text says why
// ("open '/x': Permission denied"). `error` is an errno value. Code: ENOENT and ENOTDIR are
// kNotFound, EEXIST kAlreadyExists, EACCES and EPERM kPermissionDenied, ENOSPC, EMFILE, ENFILE,
// ENOMEM, EDQUOT and EAGAIN kResourceExhausted, EINVAL, ENAMETOOLONG, ELOOP, EISDIR
// kInvalidArgument, ENOTEMPTY and EXDEV kFailedPrecondition, others kInternal.
absl::Status ErrnoStatus(int error, std::string_view what);

// The same error with "`context`: " in front of its message. An OK status stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view context);

}  // namespace creel

#define CREEL_CONCAT_INNER(a, b) a##b
#define CREEL_CONCAT(a, b) CREEL_CONCAT_INNER(a, b)

// Leaves the function with the error, if `expr` (an absl::Status) is one.
#define RETURN_IF_ERROR(expr)                 \
  do {                                        \
    if (absl::Status status_ = (expr); !status_.ok()) { \
      return status_;                         \
    }                                         \
  } while (false)

// Declares or assigns `lhs` from an absl::StatusOr, or leaves the function with its error.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_INNER(CREEL_CONCAT(status_or_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_INNER(result, lhs, expr) \
  auto result = (expr);                           \
  if (!result.ok()) {                             \
    return std::move(result).status();            \
  }                                               \
  lhs = *std::move(result)
