#pragma once

#include <cstdint>
#include <optional>

#include "supervisor/base/status.h"

namespace creel {

class GuardedConnection;

// gRPC has no place where what it receives could be looked at first. But it is a shared library,
// and the dynamic linker binds its calls to recvmsg, sendmsg, shutdown and close to the first
// definition it meets: the executable's, ahead of libc's. guarded_calls.cc defines these four, so
// that every program which links the frame guard has them. For a descriptor that is not under guard
// they are the kernel's calls after one look into a table, without lock or allocation; for one that
// is, they are those of its GuardedConnection.
//
// A gRPC that is linked statically, or that receives by another call, would go past the guard:
// ProveGuardedCalls (guard_proof.h) finds out.

// Puts `connection` in the place of the calls on its descriptor, until close. It must live until
// its Close has returned. kResourceExhausted: the number is above those that can be guarded.
absl::Status GuardCalls(GuardedConnection& connection);
// Only GuardedConnection::Close does this, before the number can be used again.
void UnguardCalls(int fd);

// What went through the guard on one connection.
struct GuardedTraffic {
  uint64_t received = 0;  // bytes from the peer that gRPC was given
  uint64_t sent = 0;      // bytes to the peer
  uint64_t frames = 0;    // that the peer has begun
};

// Of a descriptor that is under guard and is not closed meanwhile; nothing of another.
std::optional<GuardedTraffic> TrafficOf(int fd);

}  // namespace creel
