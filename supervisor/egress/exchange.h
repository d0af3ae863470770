#pragma once

#include <memory>
#include <optional>
#include <string>

#include "supervisor/egress/connection.h"
#include "supervisor/egress/http_body.h"
#include "supervisor/egress/masker.h"
#include "supervisor/egress/websocket.h"

namespace creel::egress {

// One request to a service or a plain host, and its reply: both are written anew from what was
// understood of them, with the credential added on the way out and masked on the way back.
class Exchange final : public Carrier {
 public:
  // What `verdict` points to belongs to `rules`.
  Exchange(Connection& connection, std::shared_ptr<const Rules> rules, const Verdict& verdict,
           UrlTarget to, RequestHead head);
  ~Exchange() override;

  void Begin();
  void Step() override;
  void OnHangUp() override;
  [[nodiscard]] Verdict Again(const Rules& rules, const Asker& asker) const override;
  [[nodiscard]] uint64_t bytes_up() const override { return bytes_up_; }
  [[nodiscard]] uint64_t bytes_down() const override { return bytes_down_; }

 private:
  void OnSecret(const absl::StatusOr<std::shared_ptr<const Secret>>& secret);
  void Connect();
  void OnDialed(absl::StatusOr<std::unique_ptr<Stream>> stream);
  void Send(std::unique_ptr<Stream> stream);
  // Each returns false when the exchange has ended; `moved` says that there may be more.
  bool MoveRequest(bool& moved);
  bool TakeBody();
  bool WriteUpstream(bool& moved);
  bool MoveReply(bool& moved);
  bool ReadReply();
  bool OnReplyHead(std::string_view head);
  bool TakeReplyBody();
  bool OnReplyDone();
  // Has what the masker holds back passed on if nothing more comes soon, so that a reply that
  // pauses is not short of its last bytes.
  void ArmPause();
  void OnPause();
  bool OnUpstreamEnd(bool clean);
  // The reply cannot go on: refuses if none has begun, else breaks off.
  bool Fail(int status, const std::string& reason);
  // Of a service it does not say why: that quotes the reply, which may hold the credential.
  bool FailMalformed(const std::string& part, const absl::Status& why);

  Connection& connection_;
  const std::shared_ptr<const Rules> rules_;
  const EgressService* const service_;  // null: a plain host
  const EgressRoute* const route_;
  const EgressHost* const host_;
  const UrlTarget to_;
  const RequestHead head_;
  Framing framing_;
  BodyReader body_;
  Destination destination_;
  std::string key_;  // of connections that lead there
  std::string url_;  // that of the service, in front of what Location may say
  std::shared_ptr<const Secret> secret_;
  std::unique_ptr<Stream> upstream_;
  std::string up_;           // waits to go to the upstream
  bool body_ended_ = false;  // its end is in up_
  bool up_broken_ = false;   // it takes nothing more
  bool with_upgrade_ = false;
  bool upgraded_ = false;
  std::string reply_in_;
  size_t searched_ = 0;
  bool replied_ = false;  // the reply's head was passed on
  int status_ = 0;
  bool keep_upstream_ = false;
  bool chunked_ = false;  // the reply to the sandbox is
  std::unique_ptr<BodyReader> reply_;
  std::unique_ptr<Masker> masker_;
  FrameReader frames_;  // of the reply, once upgraded
  EventLoop::Id pause_ = 0;
  uint64_t bytes_up_ = 0;
  uint64_t bytes_down_ = 0;
  // Gone with this: what was left with others finds out by it.
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  std::shared_ptr<void> dial_;
};

}  // namespace creel::egress
