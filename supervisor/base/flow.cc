#include "supervisor/base/flow.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace creel {
namespace {

// What an empty pipe takes without blocking, whatever the pieces.
constexpr size_t kCopyBytes = 32u << 10;

ssize_t Retried(auto call) {
  ssize_t result = 0;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

}  // namespace

absl::StatusOr<FlowPipe> FlowPipe::Make() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "make a pipe");
  }
  return FlowPipe(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

ssize_t FlowPipe::Fill(int from, size_t most) {
  if (!copy_from_) {
    const ssize_t got = Retried([&] {
      return splice(from, nullptr, in_.get(), nullptr, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    });
    if (got >= 0) {
      held_ += static_cast<size_t>(got);
      return got;
    }
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) {
      return got;
    }
    copy_from_ = true;
  }
  std::array<char, kCopyBytes> buffer;
  const ssize_t got =
      Retried([&] { return read(from, buffer.data(), std::min(most, buffer.size())); });
  if (got <= 0) {
    return got;
  }
  const ssize_t put =
      Retried([&] { return write(in_.get(), buffer.data(), static_cast<size_t>(got)); });
  if (put != got) {
    errno = EIO;
    return -1;
  }
  held_ += static_cast<size_t>(got);
  return got;
}

ssize_t FlowPipe::Drain(int to) {
  if (!copy_to_) {
    const ssize_t put = Retried([&] {
      return splice(out_.get(), nullptr, to, nullptr, held_, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    });
    if (put >= 0) {
      held_ -= static_cast<size_t>(put);
      return put;
    }
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) {
      return put;
    }
    copy_to_ = true;
  }
  // All of it is taken out, so that what `to` leaves goes back in the same order.
  std::vector<char> all(held_);
  size_t have = 0;
  while (have < all.size()) {
    const ssize_t got =
        Retried([&] { return read(out_.get(), all.data() + have, all.size() - have); });
    if (got <= 0) {
      errno = EIO;
      return -1;
    }
    have += static_cast<size_t>(got);
  }
  const ssize_t put =
      Retried([&] { return send(to, all.data(), all.size(), MSG_NOSIGNAL | MSG_DONTWAIT); });
  const int error = errno;
  const size_t taken = put < 0 ? 0 : static_cast<size_t>(put);
  for (size_t back = taken; back < all.size();) {
    const ssize_t again =
        Retried([&] { return write(in_.get(), all.data() + back, all.size() - back); });
    if (again <= 0) {
      errno = EIO;
      return -1;
    }
    back += static_cast<size_t>(again);
  }
  held_ -= taken;
  errno = error;
  return put;
}

absl::StatusOr<FlowPipe> FlowPipes::Take() {
  if (pipes_.empty()) {
    return FlowPipe::Make();
  }
  FlowPipe pipe = std::move(pipes_.back());
  pipes_.pop_back();
  return pipe;
}

void FlowPipes::Give(FlowPipe pipe) {
  if (pipe.held() == 0 && pipes_.size() < kept_) {
    pipes_.push_back(std::move(pipe));
  }
}

Flow::State Flow::Pump(FlowPipes& pipes, size_t budget) {
  constexpr size_t kPiece = 1u << 20;
  while (!done_) {
    if (pipe_.empty() && !ended_) {
      absl::StatusOr<FlowPipe> pipe = pipes.Take();
      if (!pipe.ok()) {
        return State::kBroken;
      }
      pipe_.push_back(*std::move(pipe));
    }
    if (!ended_ && pipe_[0].held() == 0) {
      if (budget == 0) {
        pipes.Give(std::move(pipe_[0]));
        pipe_.clear();
        return State::kMore;
      }
      const ssize_t got = pipe_[0].Fill(from_, std::min(budget, kPiece));
      if (got < 0) {
        const bool blocked = errno == EAGAIN;
        pipes.Give(std::move(pipe_[0]));
        pipe_.clear();
        return blocked ? State::kBlocked : State::kBroken;
      }
      ended_ = got == 0;
      budget -= static_cast<size_t>(got);
    }
    if (!pipe_.empty() && pipe_[0].held() > 0) {
      const ssize_t put = pipe_[0].Drain(to_);
      if (put < 0) {
        return errno == EAGAIN ? State::kBlocked : State::kStuck;
      }
      bytes_ += static_cast<uint64_t>(put);
      continue;
    }
    if (ended_) {
      if (!pipe_.empty()) {
        pipes.Give(std::move(pipe_[0]));
        pipe_.clear();
      }
      shutdown(to_, SHUT_WR);
      done_ = true;
    }
  }
  return State::kDone;
}

}  // namespace creel
