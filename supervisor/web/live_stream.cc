#include "supervisor/web/live_stream.h"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

namespace creel::web {
namespace {

using boost::system::error_code;

constexpr std::chrono::seconds kPingEvery{5};
constexpr std::chrono::seconds kWriteWithin{60};
constexpr std::chrono::seconds kTryAgain{3};

std::string Event(const std::string& name, const std::string& data) {
  return "event: " + name + "\ndata: " + data + "\n\n";
}

// One piece of a body of unknown length.
std::string Chunk(const std::string& data) {
  return fmt::format("{:x}\r\n{}\r\n", data.size(), data);
}

}  // namespace

LiveStream::LiveStream(boost::asio::io_context& io, boost::beast::tcp_stream stream, LiveHub& hub,
                       OperatorCalls& calls, Metrics& metrics, Caller caller,
                       std::function<bool()> stands, LiveRequest request)
    : io_(io),
      stream_(std::move(stream)),
      hub_(hub),
      calls_(calls),
      metrics_(metrics),
      caller_(std::move(caller)),
      stands_(std::move(stands)),
      request_(std::move(request)),
      ping_(io) {
  metrics_.OnPage(1);
}

LiveStream::~LiveStream() { metrics_.OnPage(-1); }

void LiveStream::Run(std::string head) {
  sending_ = std::move(head);
  const auto add = [&](const char* event, const char* method, const nlohmann::json& request,
                       bool restarts) {
    auto source = std::make_shared<Source>(io_);
    source->event = event;
    source->method = method;
    source->request = request.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    source->restarts = restarts;
    sources_.push_back(std::move(source));
  };
  if (!request_.session.empty()) {
    add("usage", "creel.operator.v1.Operator/WatchUsage", {{"session", request_.session}},
        /*restarts=*/true);
    if (!request_.process.empty()) {
      add("output", "creel.operator.v1.Page/ReadOutput",
          {{"session", request_.session},
           {"process_id", request_.process},
           {"offset", request_.offset},
           {"last_bytes", request_.last_bytes},
           {"follow", true}},
          /*restarts=*/false);
    }
  }
  member_ = hub_.Join(weak_from_this(), request_.session);
  for (const auto& source : sources_) {
    Begin(source);
  }
  Watch();
  Ping();
  Write();
}

// Notices that the page is gone.
void LiveStream::Watch() {
  stream_.expires_never();
  stream_.async_read_some(boost::asio::buffer(nothing_),
                          [self = shared_from_this()](const error_code& error, size_t) {
                            if (error) {
                              self->Close();
                            } else {
                              self->Watch();
                            }
                          });
}

void LiveStream::Ping() {
  ping_.expires_after(kPingEvery);
  ping_.async_wait([self = shared_from_this()](const error_code& error) {
    if (error || self->closed_) {
      return;
    }
    self->pinged_ = true;
    self->Write();
    self->Ping();
  });
}

void LiveStream::Begin(const std::shared_ptr<Source>& source) {
  if (closed_) {
    return;
  }
  OperatorCalls::StreamEvents events;
  events.on_message = [weak = weak_from_this(), source, &io = io_](std::string json) {
    boost::asio::post(io, [weak, source, json = std::move(json)]() mutable {
      if (const auto self = weak.lock()) {
        source->waiting = std::move(json);
        source->has_message = true;
        self->Write();
      }
    });
  };
  events.on_end = [weak = weak_from_this(), source, &io = io_](const grpc::Status& status) {
    boost::asio::post(io, [weak, source, status] {
      const auto self = weak.lock();
      source->stream = nullptr;
      if (self == nullptr || self->closed_) {
        return;
      }
      source->end = status.ok() ? "{}" : ErrorReply(status).json;
      self->Write();
      if (source->restarts) {
        source->again.expires_after(kTryAgain);
        source->again.async_wait([weak, source](const error_code& error) {
          if (const auto again = weak.lock(); again != nullptr && !error) {
            again->Begin(source);
          }
        });
      }
    });
  };
  OperatorCalls::Reply refused;
  source->stream =
      calls_.Open(source->method, source->request, caller_, std::move(events), refused);
  if (source->stream == nullptr) {
    source->end = refused.json;
    Write();
    return;
  }
  source->stream->Next();
}

void LiveStream::OnFrame(std::shared_ptr<const LiveHub::Frame> frame) {
  boost::asio::post(io_, [self = shared_from_this(), frame = std::move(frame)]() mutable {
    // What has not been written when the next frame comes is not worth writing: all of the newest
    // is.
    self->frame_ = std::move(frame);
    self->Write();
  });
}

void LiveStream::OnLines() {
  boost::asio::post(io_, [self = shared_from_this()] {
    self->lines_ = true;
    self->Write();
  });
}

// All that waits; false: nothing does.
bool LiveStream::Gather(std::string& out) {
  if (frame_ != nullptr) {
    const bool next = written_frame_ != 0 && frame_->number == written_frame_ + 1;
    const std::string& text = next ? frame_->changes : frame_->full;
    if (!text.empty()) {
      out += Event("state", text);
    }
    written_frame_ = frame_->number;
    frame_ = nullptr;
  }
  if (lines_) {
    lines_ = false;
    uint64_t left_out = 0;
    const std::vector<std::string> lines = hub_.TakeLines(member_, left_out);
    std::string all;
    for (const std::string& line : lines) {
      all += (all.empty() ? "" : ",") + line;
    }
    if (!lines.empty()) {
      out += Event("calls", fmt::format("{{\"leftOut\":{},\"lines\":[{}]}}", left_out, all));
      lines_ = true;  // until none is left
    }
  }
  for (const auto& source : sources_) {
    if (source->has_message) {
      out += Event(source->event, source->waiting);
      source->waiting.clear();
      source->has_message = false;
      taken_.push_back(source);
    }
    if (!source->end.empty()) {
      out += Event(source->event + "-end", std::exchange(source->end, {}));
    }
  }
  if (std::exchange(pinged_, false) && out.empty()) {
    out += Event("ping", "{}");
  }
  return !out.empty();
}

void LiveStream::Write() {
  if (writing_ || closed_) {
    return;
  }
  if (!stands_()) {
    Close();
    return;
  }
  std::string news;
  if (Gather(news)) {
    sending_ += Chunk(news);
  }
  if (sending_.empty()) {
    return;
  }
  writing_ = true;
  stream_.expires_after(kWriteWithin);
  boost::asio::async_write(stream_, boost::asio::buffer(sending_),
                           [self = shared_from_this()](const error_code& error, size_t) {
                             self->writing_ = false;
                             if (error) {
                               self->Close();
                               return;
                             }
                             self->sending_.clear();
                             // What was taken has been written: the next may come.
                             for (const auto& source : std::exchange(self->taken_, {})) {
                               if (source->stream != nullptr) {
                                 source->stream->Next();
                               }
                             }
                             self->Write();
                           });
}

void LiveStream::Close() {
  if (std::exchange(closed_, true)) {
    return;
  }
  hub_.Leave(member_);
  ping_.cancel();
  for (const auto& source : sources_) {
    source->again.cancel();
    if (source->stream != nullptr) {
      source->stream->Cancel();
    }
  }
  error_code ignored;
  stream_.socket().close(ignored);
}

}  // namespace creel::web
