#pragma once

#include <memory>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/sandbox/sandbox.h"

namespace creel {

// Makes, adopts and removes sandboxes: what Sandbox's static functions do, as an object, so that
// tests can stand in for containers. Thread-safe; calls block.
class SandboxFactory {
 public:
  virtual ~SandboxFactory() = default;
  virtual absl::StatusOr<std::shared_ptr<Sandbox>> Create(const Sandbox::Host& host,
                                                          SandboxIdentity& identity,
                                                          Deadline deadline) = 0;
  virtual absl::StatusOr<std::unique_ptr<PooledSandbox>> MakeAhead(const Sandbox::Host& host,
                                                                   SandboxIdentity& identity,
                                                                   Deadline deadline) = 0;
  virtual absl::StatusOr<std::shared_ptr<Sandbox>> Adopt(const Sandbox::Host& host,
                                                         const SandboxIdentity& identity,
                                                         Deadline deadline) = 0;
  virtual absl::Status Remove(const Sandbox::Host& host, const SandboxIdentity& identity,
                              Deadline deadline) = 0;
};

// The one that makes containers.
SandboxFactory& ContainerFactory();

}  // namespace creel
