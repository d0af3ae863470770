// Reading, writing and editing files.
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <chrono>

#include "agent-shim/files/kernel.h"
#include "agent-shim/files/reader.h"
#include "agent-shim/files/writer.h"
#include "supervisor/base/crypto.h"
#include "tests/agent-shim/files/scratch.h"

namespace creel::shim {
namespace {

using std::chrono::steady_clock;

absl::StatusOr<std::string> Read(const Scratch& scratch, const v1::ReadFileArgs& args) {
  absl::StatusOr<std::vector<v1::FileChunk>> chunks = Drain(ReadFile(scratch.roots(), args));
  if (!chunks.ok()) {
    return chunks.status();
  }
  CHECK(chunks->front().has_info());
  std::string content;
  for (const v1::FileChunk& chunk : *chunks) {
    CHECK(chunk.data().size() <= size_t{1} << 20U);
    content += chunk.data();
  }
  return content;
}

absl::StatusOr<v1::WriteFileResult> Write(const Scratch& scratch, const v1::WriteFileArgs& args,
                                          std::string_view content) {
  const Cancel cancel;
  absl::StatusOr<std::unique_ptr<FileWriter>> writer =
      FileWriter::Open(scratch.roots(), args, cancel);
  if (!writer.ok()) {
    return writer.status();
  }
  const absl::Status appended = (*writer)->Append(content);
  return appended.ok() ? (*writer)->Commit() : absl::StatusOr<v1::WriteFileResult>(appended);
}

std::string HashOf(std::string_view content) {
  Sha256 hash;
  hash.Update(content);
  return hash.Finish();
}

mode_t ModeOf(const std::string& path) {
  struct stat stat {};
  REQUIRE(lstat(path.c_str(), &stat) == 0);
  return stat.st_mode & 07777U;
}

size_t EntriesIn(const std::string& directory) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory), {}));
}

template <typename Args>
Args At(const std::string& path) {
  Args args;
  args.set_path(path);
  return args;
}

// A process that holds a write lease on `path` until it is destroyed, and never gives it up.
class LeaseHolder {
 public:
  explicit LeaseHolder(const std::string& path) {
    int ready[2];
    REQUIRE(pipe2(ready, O_CLOEXEC) == 0);
    child_ = fork();
    if (child_ == 0) {
      // Without this the signal of the lease break would end it.
      signal(SIGIO, SIG_IGN);
      const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
      const char held = fcntl(fd, F_SETLEASE, F_WRLCK) == 0 ? 1 : 0;
      (void)!write(ready[1], &held, 1);
      pause();
      _exit(0);
    }
    char held = 0;
    REQUIRE(read(ready[0], &held, 1) == 1);
    close(ready[0]);
    close(ready[1]);
    held_ = held == 1;
  }
  ~LeaseHolder() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  LeaseHolder(const LeaseHolder&) = delete;
  LeaseHolder& operator=(const LeaseHolder&) = delete;
  [[nodiscard]] bool held() const { return held_; }

 private:
  pid_t child_ = -1;
  bool held_ = false;
};

TEST_SUITE("ReadFile") {
  TEST_CASE("ranges give exactly what they name") {
    const Scratch scratch;
    std::string content;
    for (int i = 0; i < 300'000; ++i) {
      content += std::to_string(i);
    }
    Put(scratch.Work("file"), content);
    auto args = At<v1::ReadFileArgs>("file");
    CHECK(Read(scratch, args).value_or("") == content);
    args.set_offset(1'000'001);
    CHECK(Read(scratch, args).value_or("") == content.substr(1'000'001));
    args.set_length(7);
    CHECK(Read(scratch, args).value_or("") == content.substr(1'000'001, 7));
    args.set_offset(uint64_t{1} << 63U);
    CHECK(Read(scratch, args).value_or("x").empty());
    args.set_max_size(100);
    CHECK(absl::IsFailedPrecondition(Read(scratch, args).status()));
    Put(scratch.Work("empty"), "");
    CHECK(Read(scratch, At<v1::ReadFileArgs>("empty")).value_or("x").empty());
  }

  TEST_CASE("a sparse file of a terabyte can be read in part and given up") {
    const Scratch scratch;
    Put(scratch.Work("sparse"), "");
    REQUIRE(truncate(scratch.Work("sparse").c_str(), off_t{1} << 40) == 0);
    auto args = At<v1::ReadFileArgs>("sparse");
    args.set_offset((uint64_t{1} << 40U) - 10);
    CHECK(Read(scratch, args).value_or("") == std::string(10, '\0'));
    args.set_offset(0);
    absl::StatusOr<std::unique_ptr<Producer<v1::FileChunk>>> producer =
        ReadFile(scratch.roots(), args);
    REQUIRE(producer.ok());
    Cancel cancel;
    v1::FileChunk chunk;
    CHECK((*producer)->Next(chunk, cancel).ok());
    cancel.Set();
    CHECK(absl::IsCancelled((*producer)->Next(chunk, cancel).status()));
  }

  TEST_CASE("what was appended after the opening is not read") {
    const Scratch scratch;
    Put(scratch.Work("file"), "before");
    absl::StatusOr<std::unique_ptr<Producer<v1::FileChunk>>> producer =
        ReadFile(scratch.roots(), At<v1::ReadFileArgs>("file"));
    REQUIRE(producer.ok());
    Put(scratch.Work("file"), "before and after");
    const Cancel cancel;
    v1::FileChunk chunk;
    CHECK((*producer)->Next(chunk, cancel).ok());
    CHECK(chunk.data() == "before");
  }

  TEST_CASE("what is no file is refused at once and by name") {
    const Scratch scratch;
    REQUIRE(mkfifo(scratch.Work("fifo").c_str(), 0666) == 0);
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    scratch.Work("socket").copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    std::vector<std::pair<std::string, std::string>> rows = {
        {"fifo", "is a fifo"}, {"socket", "is a socket"}, {".", "is a directory"}};
    if (mknod(scratch.Work("device").c_str(), S_IFCHR | 0666, makedev(1, 5)) == 0) {
      rows.emplace_back("device", "is a device");
    }
    const auto begin = steady_clock::now();
    for (const auto& [name, message] : rows) {
      CAPTURE(name);
      const absl::Status read = Read(scratch, At<v1::ReadFileArgs>(name)).status();
      CHECK(absl::IsFailedPrecondition(read));
      CHECK(std::string(read.message()).find(message) != std::string::npos);
      CHECK(absl::IsFailedPrecondition(Write(scratch, At<v1::WriteFileArgs>(name), "x").status()));
      auto append = At<v1::WriteFileArgs>(name);
      append.set_append(true);
      CHECK(absl::IsFailedPrecondition(Write(scratch, append, "x").status()));
    }
    CHECK(steady_clock::now() - begin < std::chrono::seconds(1));
    close(listener);
  }

  TEST_CASE("a leased file holds nobody up") {
    const Scratch scratch;
    Put(scratch.Work("file"), "content");
    const LeaseHolder holder(scratch.Work("file"));
    REQUIRE(holder.held());
    const auto begin = steady_clock::now();
    CHECK(absl::IsFailedPrecondition(Read(scratch, At<v1::ReadFileArgs>("file")).status()));
    CHECK(steady_clock::now() - begin < std::chrono::seconds(1));
  }
}

TEST_SUITE("WriteFile") {
  TEST_CASE("a new file gets its mode, an old one keeps it") {
    const Scratch scratch;
    const absl::StatusOr<v1::WriteFileResult> made =
        Write(scratch, At<v1::WriteFileArgs>("file"), "one");
    REQUIRE(made.ok());
    CHECK(made->created());
    CHECK(made->sha256() == HashOf("one"));
    CHECK(made->info().size() == 3);
    CHECK(ModeOf(scratch.Work("file")) == 0644);
    REQUIRE(chmod(scratch.Work("file").c_str(), 0751) == 0);
    auto args = At<v1::WriteFileArgs>("file");
    args.set_mode(0600);
    const absl::StatusOr<v1::WriteFileResult> replaced = Write(scratch, args, "two");
    REQUIRE(replaced.ok());
    CHECK(!replaced->created());
    CHECK(ModeOf(scratch.Work("file")) == 0751);
    CHECK(Get(scratch.Work("file")) == "two");
    args.set_path("setuid");
    args.set_mode(06777);
    CHECK(Write(scratch, args, "x").ok());
    CHECK(ModeOf(scratch.Work("setuid")) == 0755);
    CHECK(EntriesIn(scratch.Work("")) == 2);
  }

  TEST_CASE("through a link the target is written and the link stays") {
    const Scratch scratch;
    Put(scratch.Work("target"), "old");
    REQUIRE(symlink("target", scratch.Work("link").c_str()) == 0);
    REQUIRE(symlink("fresh", scratch.Work("dangling").c_str()) == 0);
    CHECK(Write(scratch, At<v1::WriteFileArgs>("link"), "new").ok());
    CHECK(Get(scratch.Work("target")) == "new");
    CHECK(std::filesystem::is_symlink(scratch.Work("link")));
    CHECK(Write(scratch, At<v1::WriteFileArgs>("dangling"), "new").ok());
    CHECK(Get(scratch.Work("fresh")) == "new");
    auto args = At<v1::WriteFileArgs>("link");
    args.set_exclusive(true);
    CHECK(absl::IsAlreadyExists(Write(scratch, args, "x").status()));
  }

  TEST_CASE("a call that does not end leaves everything as it was") {
    const Scratch scratch;
    Put(scratch.Work("file"), "old");
    const Cancel cancel;
    {
      absl::StatusOr<std::unique_ptr<FileWriter>> writer =
          FileWriter::Open(scratch.roots(), At<v1::WriteFileArgs>("file"), cancel);
      REQUIRE(writer.ok());
      CHECK((*writer)->Append("half").ok());
      CHECK(EntriesIn(scratch.Work("")) == 2);
    }
    CHECK(EntriesIn(scratch.Work("")) == 1);
    CHECK(Get(scratch.Work("file")) == "old");
  }

  TEST_CASE("exclusive, expected and appended writes hold to their word") {
    const Scratch scratch;
    auto exclusive = At<v1::WriteFileArgs>("file");
    exclusive.set_exclusive(true);
    CHECK(Write(scratch, exclusive, "one").ok());
    CHECK(absl::IsAlreadyExists(Write(scratch, exclusive, "two").status()));
    auto expected = At<v1::WriteFileArgs>("file");
    expected.set_expected_sha256(HashOf("other"));
    CHECK(absl::IsAborted(Write(scratch, expected, "two").status()));
    CHECK(Get(scratch.Work("file")) == "one");
    expected.set_expected_sha256(HashOf("one"));
    CHECK(Write(scratch, expected, "two").ok());
    expected.set_path("missing");
    CHECK(absl::IsAborted(Write(scratch, expected, "x").status()));
    expected.set_expected_sha256("short");
    CHECK(absl::IsInvalidArgument(Write(scratch, expected, "x").status()));
    auto append = At<v1::WriteFileArgs>("file");
    append.set_append(true);
    CHECK(Write(scratch, append, " three").ok());
    CHECK(Get(scratch.Work("file")) == "two three");
    append.set_path("log");
    CHECK(Write(scratch, append, "first").value_or(v1::WriteFileResult()).created());
    auto deep = At<v1::WriteFileArgs>("a/b/c");
    CHECK(absl::IsNotFound(Write(scratch, deep, "x").status()));
    deep.set_make_parents(true);
    CHECK(Write(scratch, deep, "x").ok());
    CHECK(ModeOf(scratch.Work("a/b")) == 0755);
    CHECK(absl::IsFailedPrecondition(Write(scratch, At<v1::WriteFileArgs>("new/"), "x").status()));
  }

  TEST_CASE("a change between the check and the commit is noticed") {
    const Scratch scratch;
    Put(scratch.Work("file"), "one");
    auto args = At<v1::WriteFileArgs>("file");
    args.set_expected_sha256(HashOf("one"));
    const Cancel cancel;
    absl::StatusOr<std::unique_ptr<FileWriter>> writer =
        FileWriter::Open(scratch.roots(), args, cancel);
    REQUIRE(writer.ok());
    CHECK((*writer)->Append("mine").ok());
    Put(scratch.Work("file"), "theirs");
    CHECK(absl::IsAborted((*writer)->Commit().status()));
    CHECK(Get(scratch.Work("file")) == "theirs");
  }

  TEST_CASE("names are bytes") {
    const Scratch scratch;
    for (const std::string name : {"new\nline", "\xff\xfe", "\x1b[31m", "-rf", " "}) {
      CHECK(Write(scratch, At<v1::WriteFileArgs>(name), name).ok());
      CHECK(Read(scratch, At<v1::ReadFileArgs>(name)).value_or("") == name);
    }
    const absl::Status missing = Read(scratch, At<v1::ReadFileArgs>("no\x1b[31m\xff")).status();
    CHECK(std::string(missing.message()).find("\\x1b[31m\\xff") != std::string::npos);
  }
}

TEST_SUITE("EditFile") {
  v1::EditFileArgs Edit(const std::string& old_text, const std::string& new_text) {
    auto args = At<v1::EditFileArgs>("file");
    args.set_old_text(old_text);
    args.set_new_text(new_text);
    return args;
  }

  TEST_CASE("exactly what was asked for is replaced, and the mode stays") {
    const Scratch scratch;
    const Cancel cancel;
    Put(scratch.Work("file"), "one two one");
    REQUIRE(chmod(scratch.Work("file").c_str(), 0700) == 0);
    absl::StatusOr<v1::EditFileResult> result = EditFile(scratch.roots(), Edit("two", "2"), cancel);
    REQUIRE(result.ok());
    CHECK(result->matches() == 1);
    CHECK(result->sha256() == HashOf("one 2 one"));
    CHECK(Get(scratch.Work("file")) == "one 2 one");
    CHECK(ModeOf(scratch.Work("file")) == 0700);
    const absl::Status twice = EditFile(scratch.roots(), Edit("one", "1"), cancel).status();
    CHECK(absl::IsFailedPrecondition(twice));
    CHECK(std::string(twice.message()).find("2 times") != std::string::npos);
    const absl::Status none = EditFile(scratch.roots(), Edit("three", ""), cancel).status();
    CHECK(absl::IsNotFound(none));
    CHECK(std::string(none.message()).find("no match") != std::string::npos);
    CHECK(absl::IsInvalidArgument(EditFile(scratch.roots(), Edit("", "x"), cancel).status()));
    v1::EditFileArgs all = Edit("one", std::string("\0\n", 2));
    all.set_replace_all(true);
    all.set_expected_sha256(HashOf("else"));
    CHECK(absl::IsAborted(EditFile(scratch.roots(), all, cancel).status()));
    all.clear_expected_sha256();
    CHECK(EditFile(scratch.roots(), all, cancel).value_or(v1::EditFileResult()).matches() == 2);
    CHECK(Get(scratch.Work("file")) == std::string("\0\n 2 \0\n", 7));
    CHECK(EntriesIn(scratch.Work("")) == 1);
  }

  TEST_CASE("what is too large before or after is refused") {
    const Scratch scratch;
    const Cancel cancel;
    Put(scratch.Work("file"), std::string(1'000'000, 'a'));
    v1::EditFileArgs args = Edit("a", std::string(1000, 'b'));
    args.set_replace_all(true);
    CHECK(absl::IsFailedPrecondition(EditFile(scratch.roots(), args, cancel).status()));
    REQUIRE(truncate(scratch.Work("file").c_str(), off_t{1} << 40) == 0);
    CHECK(absl::IsFailedPrecondition(EditFile(scratch.roots(), args, cancel).status()));
  }
}

}  // namespace
}  // namespace creel::shim
