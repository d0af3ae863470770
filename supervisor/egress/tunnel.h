#pragma once

#include <memory>
#include <optional>
#include <string>

#include "supervisor/base/flow.h"
#include "supervisor/egress/connection.h"

namespace creel::egress {

// A tunnel to an allowed name: bytes both ways, once the first of them have shown that they are TLS
// for that name.
class Tunnel final : public Carrier {
 public:
  // `host` belongs to `rules`.
  Tunnel(Connection& connection, std::shared_ptr<const Rules> rules, const EgressHost& host,
         Authority to);
  ~Tunnel() override;

  void Begin();
  void Step() override;
  [[nodiscard]] Verdict Again(const Rules& rules, const Asker& asker) const override;
  [[nodiscard]] uint64_t bytes_up() const override;
  [[nodiscard]] uint64_t bytes_down() const override;

 private:
  enum class Phase { kDialing, kHello, kFirstBytes, kCarrying };

  void OnDialed(absl::StatusOr<std::unique_ptr<Stream>> stream);
  // Whether the hello has come and is good; ends the tunnel if it is not.
  bool CheckHello();
  void RefuseHello(const std::string& reason);
  void Carry();

  Connection& connection_;
  const std::shared_ptr<const Rules> rules_;
  const EgressHost& host_;
  const Authority to_;
  Phase phase_ = Phase::kDialing;
  bool named_ = false;  // its ClientHello was for the name
  std::unique_ptr<Stream> upstream_;
  std::optional<Flow> up_;
  std::optional<Flow> down_;
  uint64_t first_bytes_ = 0;
  EventLoop::Id timer_ = 0;
  std::shared_ptr<void> dial_;  // last: it calls back until it is gone
};

// Refuses what could not be reached, with the status and words that go with the error.
void RefuseDial(Connection& connection, const absl::Status& error);

}  // namespace creel::egress
