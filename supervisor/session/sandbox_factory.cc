#include "supervisor/session/sandbox_factory.h"

#include "supervisor/session/session_manager.h"

namespace creel {
namespace {

class Containers final : public SandboxFactory {
 public:
  absl::StatusOr<std::shared_ptr<Sandbox>> Create(const Sandbox::Host& host,
                                                  SandboxIdentity& identity,
                                                  Deadline deadline) override {
    return Sandbox::Create(host, identity, deadline);
  }
  absl::StatusOr<std::unique_ptr<PooledSandbox>> MakeAhead(const Sandbox::Host& host,
                                                           SandboxIdentity& identity,
                                                           Deadline deadline) override {
    return Sandbox::MakeAhead(host, identity, deadline);
  }
  absl::StatusOr<std::shared_ptr<Sandbox>> Adopt(const Sandbox::Host& host,
                                                 const SandboxIdentity& identity,
                                                 Deadline deadline) override {
    return Sandbox::Adopt(host, identity, deadline);
  }
  absl::Status Remove(const Sandbox::Host& host, const SandboxIdentity& identity,
                      Deadline deadline) override {
    return Sandbox::Remove(host, identity, deadline);
  }
};

}  // namespace

SandboxFactory& ContainerFactory() {
  static Containers& containers = *new Containers;
  return containers;
}

// Here and not beside its namesake, so that what stands in for containers need not link them.
absl::StatusOr<std::unique_ptr<SessionManager>> SessionManager::Create(const Sandbox::Host& host,
                                                                       Store& store,
                                                                       const Clock& clock) {
  return Create(host, store, clock, ContainerFactory());
}

}  // namespace creel
