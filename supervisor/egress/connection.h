#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "supervisor/egress/door.h"
#include "supervisor/egress/http_head.h"
#include "supervisor/egress/stream.h"

namespace creel::egress {

// What carries one request or tunnel once it was allowed. Steps when anything may have changed.
class Carrier {
 public:
  virtual ~Carrier() = default;
  // Goes on as far as it can without blocking. May end itself by the connection's Finish or Close.
  virtual void Step() = 0;
  // The sandbox has closed the connection for good.
  virtual void OnHangUp() {}
  // Whether the rules, asked again, still allow it.
  [[nodiscard]] virtual Verdict Again(const Rules& rules, const Asker& asker) const = 0;
  [[nodiscard]] virtual uint64_t bytes_up() const = 0;
  [[nodiscard]] virtual uint64_t bytes_down() const = 0;
};

// One connection from a sandbox: reads what it asks for, has it judged, refuses it or hands it to a
// carrier; then the next request. Everything from it is hostile. Lives in the loop's thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(House& house, std::shared_ptr<Door> door, UniqueFd socket);
  ~Connection();

  absl::Status Begin();
  // Stands for the facts: who it is is made up.
  void SetAsker(const Asker& asker) { made_up_ = asker; }
  // Something may have changed.
  void Step();
  // The rules, or who asks, may have: ends what is no longer allowed.
  void Recheck();
  // Ends now.
  void Cut(const std::string& why);

  // The rest is for carriers.

  House& house() { return house_; }
  [[nodiscard]] int socket() const { return socket_.get(); }
  // What has come from the sandbox and was not used.
  std::string& in() { return in_; }
  // What waits to go to it.
  std::string& out() { return out_; }
  // Reads more into in(), at most `most`.
  Io Read(size_t most);
  // Writes of out() what it takes; false: the sandbox is gone.
  bool Flush();
  // How many bytes may be carried now; 0: the minute's are used up, and Step comes again.
  size_t Allowance();
  void Carried(size_t bytes);
  // Watches an upstream; its events come as Step. Unwatched by the next call, or the end.
  absl::Status WatchUpstream(int fd);
  void UnwatchUpstream();
  // Runs `step` again, after others had their turn.
  void StepSoon();
  // An upstream that may serve the next request to the same destination; empty key: none.
  struct Kept {
    std::string key;
    std::unique_ptr<Stream> stream;
  };
  Kept& kept() { return kept_; }

  // Replies with a refusal, or another reply of our own, and ends the connection after it.
  void Refuse(int status, const std::string& rule, const std::string& reason,
              const std::string& add = {});
  // The carrier is through. `status`: what the sandbox was answered; `keep`: another request may
  // follow; `reason`: why it ended early.
  void Finish(int status, bool keep, const std::string& reason = {});

 private:
  enum class State { kHead, kSocks, kWaiting, kCarrying, kLingering, kClosed };

  void ReadHead();
  void ReadSocks();
  void SocksReply(uint8_t code);
  void OnRequest(RequestHead head);
  void OnConnect(const RequestHead& head);
  void OnPlain(RequestHead head);
  void OpenTunnel(const Authority& to, bool socks);
  // Whether another request may begin now; else refuses it.
  bool TakeRequest();
  void RefuseByRate(const std::string& reason);
  // Refuses what could not be read as a request; it counts as one.
  void RefuseUnread(int status, const std::string& reason);
  [[nodiscard]] Asker Ask() const;
  // Writes down what was decided, before it has an effect. False: that was to be allowed, could
  // not be written, and has been refused.
  bool Decided(const Verdict& verdict, const std::string& kind, const std::string& method,
               const std::string& target, const std::string& path);
  void RefuseBy(const Verdict& verdict);
  void Ended(int status, const std::string& reason);
  void ArmTimer();
  void OnTimer();
  void Close();

  friend class Tunnel;
  friend class Exchange;

  House& house_;
  const std::shared_ptr<Door> door_;
  UniqueFd socket_;
  EventLoop::Id watch_ = 0;
  EventLoop::Id upstream_watch_ = 0;
  EventLoop::Id timer_ = 0;
  EventLoop::Id slow_ = 0;  // while the bytes of the minute are used up
  State state_ = State::kHead;
  bool stepping_ = false;
  bool hung_up_ = false;
  bool again_ = false;
  std::string in_;
  size_t searched_ = 0;  // of in_, for the head's end
  std::string out_;
  bool socks_ = false;
  bool greeted_ = false;  // of SOCKS
  Kept kept_;
  std::unique_ptr<Carrier> carrier_;
  std::unique_ptr<Carrier> dead_;  // one that ended itself while it stepped
  std::optional<Asker> made_up_;
  Asker asker_;
  Record record_;
  bool recorded_ = false;  // decided, and not ended
  std::chrono::steady_clock::time_point began_;
  std::chrono::steady_clock::time_point state_since_;
  std::chrono::steady_clock::time_point active_;
};

}  // namespace creel::egress
