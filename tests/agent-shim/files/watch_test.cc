#include "agent-shim/files/watch.h"

#include <sys/eventfd.h>

#include <chrono>
#include <thread>

#include "tests/agent-shim/files/scratch.h"

namespace creel::shim {
namespace {

namespace fs = std::filesystem;

ToolIdentity Myself() { return {.uid = geteuid(), .gid = getegid()}; }

// Reads events until `path` was told of with `kind`. Gives up after two seconds.
class Events {
 public:
  Events(const Scratch& scratch, bool recursive) : wake_(eventfd(0, EFD_CLOEXEC)) {
    v1::WatchArgs args;
    args.set_path("dir");
    args.set_recursive(recursive);
    absl::StatusOr<std::unique_ptr<Watcher>> watcher =
        Watcher::Open(scratch.roots(), MakeInotifyAs(Myself()), args, cancel_);
    REQUIRE_MESSAGE(watcher.ok(), std::string(watcher.status().message()));
    watcher_ = *std::move(watcher);
    CHECK(Next().value_or(v1::WatchEvent()).kind() == v1::WATCH_KIND_READY);
  }

  absl::StatusOr<v1::WatchEvent> Next() {
    std::atomic<bool> done = false;
    std::thread alarm([&] {
      for (int i = 0; i < 200 && !done; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      if (!done) {
        const uint64_t one = 1;
        (void)!write(wake_.get(), &one, sizeof one);
      }
    });
    absl::StatusOr<v1::WatchEvent> event = watcher_->Next(wake_.get(), cancel_);
    done = true;
    alarm.join();
    return event;
  }

  bool Sees(v1::WatchKind kind, const std::string& path, const std::string& old_path = "") {
    while (true) {
      const absl::StatusOr<v1::WatchEvent> event = Next();
      if (!event.ok()) {
        return false;
      }
      if (event->kind() == kind && event->path() == path && event->old_path() == old_path) {
        return true;
      }
    }
  }

 private:
  const UniqueFd wake_;
  const Cancel cancel_;
  std::unique_ptr<Watcher> watcher_;
};

TEST_SUITE("Watcher") {
  TEST_CASE("changes are told by what they are") {
    const Scratch scratch;
    fs::create_directory(scratch.Work("dir"));
    Put(scratch.Work("stray"), "");
    Events events(scratch, false);
    Put(scratch.Work("dir/file"), "x");
    CHECK(events.Sees(v1::WATCH_KIND_CREATED, "file"));
    CHECK(events.Sees(v1::WATCH_KIND_MODIFIED, "file"));
    fs::rename(scratch.Work("dir/file"), scratch.Work("dir/other"));
    CHECK(events.Sees(v1::WATCH_KIND_MOVED, "other", "file"));
    fs::rename(scratch.Work("dir/other"), scratch.Work("away"));
    CHECK(events.Sees(v1::WATCH_KIND_REMOVED, "other"));
    fs::rename(scratch.Work("stray"), scratch.Work("dir/stray"));
    CHECK(events.Sees(v1::WATCH_KIND_CREATED, "stray"));
    fs::remove(scratch.Work("dir/stray"));
    CHECK(events.Sees(v1::WATCH_KIND_REMOVED, "stray"));
    fs::remove(scratch.Work("dir"));
    absl::StatusOr<v1::WatchEvent> last = events.Next();
    while (last.ok()) {
      last = events.Next();
    }
    CHECK(absl::IsNotFound(last.status()));
  }

  TEST_CASE("directories that appear or are renamed are watched with all below") {
    const Scratch scratch;
    fs::create_directories(scratch.Work("dir/a/b"));
    Events events(scratch, true);
    Put(scratch.Work("dir/a/b/file"), "x");
    CHECK(events.Sees(v1::WATCH_KIND_CREATED, "a/b/file"));
    fs::create_directories(scratch.Work("dir/new/deep"));
    Put(scratch.Work("dir/new/deep/file"), "x");
    CHECK(events.Sees(v1::WATCH_KIND_CREATED, "new/deep/file"));
    fs::rename(scratch.Work("dir/a"), scratch.Work("dir/z"));
    CHECK(events.Sees(v1::WATCH_KIND_MOVED, "z", "a"));
    Put(scratch.Work("dir/z/b/later"), "x");
    CHECK(events.Sees(v1::WATCH_KIND_CREATED, "z/b/later"));
  }

  TEST_CASE("a link that leads outside is not watched") {
    const Scratch scratch;
    REQUIRE(symlink(scratch.Outside("").c_str(), scratch.Work("dir").c_str()) == 0);
    v1::WatchArgs args;
    args.set_path("dir");
    const Cancel cancel;
    CHECK(
        absl::IsPermissionDenied(Watcher::Open(scratch.roots(), MakeInotifyAs(Myself()), args, cancel).status()));
  }

  TEST_CASE("too many directories are said, not silently left out") {
    const Scratch scratch;
    fs::create_directory(scratch.Work("dir"));
    for (int i = 0; i < 4100; ++i) {
      fs::create_directory(scratch.Work("dir/" + std::to_string(i)));
    }
    v1::WatchArgs args;
    args.set_path("dir");
    args.set_recursive(true);
    const Cancel cancel;
    CHECK(
        absl::IsResourceExhausted(Watcher::Open(scratch.roots(), MakeInotifyAs(Myself()), args, cancel).status()));
  }
}

}  // namespace
}  // namespace creel::shim
