#include <sys/sysmacros.h>
#include <sys/wait.h>

#include <random>

#include "agent-shim/files/tar_format.h"
#include "agent-shim/files/tar_in.h"
#include "agent-shim/files/tar_out.h"
#include "tests/agent-shim/files/scratch.h"

namespace creel::shim {
namespace {

namespace fs = std::filesystem;

std::string Pack(const Scratch& scratch, const std::string& path, const std::string& root = "") {
  v1::TarOutArgs args;
  args.set_path(path);
  args.set_rename_root(root);
  const absl::StatusOr<std::vector<std::string>> pieces = Drain(TarOut(scratch.roots(), args));
  REQUIRE_MESSAGE(pieces.ok(), std::string(pieces.status().message()));
  std::string archive;
  for (const std::string& piece : *pieces) {
    CHECK(piece.size() <= size_t{1} << 20U);
    archive += piece;
  }
  return archive;
}

absl::StatusOr<v1::TarInResult> Unpack(const Scratch& scratch, const std::string& path,
                                       std::string_view archive, size_t piece = 1000,
                                       const std::string& root = "") {
  v1::TarInArgs args;
  args.set_path(path);
  args.set_make_parents(true);
  args.set_rename_root(root);
  absl::StatusOr<std::unique_ptr<TarUnpacker>> unpacker = TarUnpacker::Open(scratch.roots(), args);
  if (!unpacker.ok()) {
    return unpacker.status();
  }
  for (size_t at = 0; at < archive.size(); at += piece) {
    const absl::Status status = (*unpacker)->Append(archive.substr(at, piece));
    if (!status.ok()) {
      return status;
    }
  }
  return (*unpacker)->Finish();
}

std::string Entry(const TarHeader& header, const std::string& content = "") {
  TarHeader sized = header;
  sized.size = content.size();
  std::string entry = EncodeTarHeader(sized) + content;
  entry.append(TarPadding(content.size()), '\0');
  return entry;
}

// A header of any type, with its checksum put right.
std::string WithType(std::string block, char type) {
  block[156] = type;
  uint32_t sum = 0;
  for (size_t i = 0; i < kTarBlock; ++i) {
    sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(block[i]);
  }
  snprintf(block.data() + 148, 7, "%06o", sum);
  return block;
}

const std::string kEnd(2 * kTarBlock, '\0');

TEST_SUITE("tar") {
  TEST_CASE("what is packed is unpacked the same, in pieces of any size") {
    const Scratch scratch;
    const std::string long_name(200, 'n');
    fs::create_directories(scratch.Work("tree/sub/" + long_name));
    Put(scratch.Work("tree/file"), std::string(70'000, 'f'));
    Put(scratch.Work("tree/empty"), "");
    Put(scratch.Work("tree/sub/" + long_name + "/" + long_name), "deep");
    chmod(scratch.Work("tree/file").c_str(), 04711);
    REQUIRE(symlink("../anywhere", scratch.Work("tree/link").c_str()) == 0);
    REQUIRE(mkfifo(scratch.Work("tree/fifo").c_str(), 0600) == 0);
    const std::string archive = Pack(scratch, "tree");
    for (const size_t piece : {size_t{1}, size_t{511}, size_t{512}, size_t{100'000}}) {
      CAPTURE(piece);
      const std::string to = "out" + std::to_string(piece);
      const absl::StatusOr<v1::TarInResult> result = Unpack(scratch, to, archive, piece);
      REQUIRE_MESSAGE(result.ok(), std::string(result.status().message()));
      CHECK(result->entries() == 7);
      CHECK(result->bytes() == 70'004);
      CHECK(Get(scratch.Work(to + "/tree/file")) == std::string(70'000, 'f'));
      CHECK(Get(scratch.Work(to + "/tree/sub/" + long_name + "/" + long_name)) == "deep");
      CHECK(fs::read_symlink(scratch.Work(to + "/tree/link")) == "../anywhere");
      struct stat stat {};
      REQUIRE(lstat(scratch.Work(to + "/tree/file").c_str(), &stat) == 0);
      CHECK((stat.st_mode & 07777U) == 0711);
    }
    CHECK(Unpack(scratch, "named", archive, 1000, "other").ok());
    CHECK(fs::exists(scratch.Work("named/other/file")));
    CHECK(Unpack(scratch, "whole", Pack(scratch, "tree/file", "renamed")).ok());
    CHECK(fs::file_size(scratch.Work("whole/renamed")) == 70'000);
  }

  TEST_CASE("other programs read ours and we read theirs") {
    const Scratch scratch;
    fs::create_directories(scratch.Work("tree/sub"));
    // Too long for the name field alone, and yet to be split for ustar.
    const std::string long_name = std::string(90, 'd') + "/" + std::string(90, 'f');
    fs::create_directory(scratch.Work("tree/" + std::string(90, 'd')));
    Put(scratch.Work("tree/" + long_name), "long");
    Put(scratch.Work("tree/sub/file"), "content");
    REQUIRE(link(scratch.Work("tree/sub/file").c_str(), scratch.Work("tree/hard").c_str()) == 0);
    Put(scratch.Work("ours.tar"), Pack(scratch, "tree"));
    const std::string in = "cd '" + scratch.Work("") + "' && ";
    fs::create_directory(scratch.Work("theirs"));
    REQUIRE(std::system((in + "tar -C theirs -xf ours.tar").c_str()) == 0);
    CHECK(Get(scratch.Work("theirs/tree/" + long_name)) == "long");
    CHECK(Get(scratch.Work("theirs/tree/hard")) == "content");
    for (const std::string format : {"gnu", "pax", "ustar"}) {
      CAPTURE(format);
      REQUIRE(std::system((in + "tar --format=" + format + " -cf t.tar tree").c_str()) == 0);
      const absl::StatusOr<v1::TarInResult> result =
          Unpack(scratch, format, Get(scratch.Work("t.tar")));
      REQUIRE_MESSAGE(result.ok(), std::string(result.status().message()));
      CHECK(Get(scratch.Work(format + "/tree/" + long_name)) == "long");
      CHECK(Get(scratch.Work(format + "/tree/hard")) == "content");
      CHECK(result->entries_refused() == 0);
    }
  }

  TEST_CASE("no entry lands outside") {
    const Scratch scratch;
    Put(scratch.Outside("victim"), "safe");
    const std::string outside = scratch.Outside("");
    fs::create_directory(scratch.Work("box"));
    // A link that was there before the archive came.
    REQUIRE(symlink(outside.c_str(), scratch.Work("box/planted").c_str()) == 0);
    REQUIRE(symlink((outside + "victim").c_str(), scratch.Work("box/file").c_str()) == 0);
    const std::string archive =
        Entry({.name = "../../outside/victim"}, "x") + Entry({.name = outside + "victim"}, "x") +
        Entry({.name = "a/../../../outside/victim"}, "x") +
        Entry({.kind = TarKind::kLink, .name = "dir", .link = outside}) +
        Entry({.name = "dir/victim"}, "x") +
        Entry({.kind = TarKind::kDirectory, .name = "dir/made/"}) +
        Entry({.name = "planted/victim"}, "x") +
        Entry({.kind = TarKind::kHardLink, .name = "hard", .link = outside + "victim"}) +
        Entry({.kind = TarKind::kHardLink, .name = "hard", .link = "dir/victim"}) +
        Entry({.kind = TarKind::kHardLink, .name = "hard", .link = "../outside/victim"}) +
        Entry({.kind = TarKind::kHardLink, .name = "hard", .link = "dir"}) +
        WithType(Entry({.name = "device"}), '3') + WithType(Entry({.name = "fifo"}), '6') +
        Entry({.name = "file"}, "new") + kEnd;
    const absl::StatusOr<v1::TarInResult> result = Unpack(scratch, "box", archive);
    REQUIRE_MESSAGE(result.ok(), std::string(result.status().message()));
    CHECK(result->entries() == 2);
    CHECK(result->entries_refused() == 12);
    CHECK(Get(scratch.Outside("victim")) == "safe");
    CHECK(!fs::exists(scratch.Outside("made")));
    CHECK(!fs::exists(scratch.Work("box/hard")));
    CHECK(!fs::exists(scratch.Work("box/device")));
    // The link gave way to the file instead of being written through.
    CHECK(!fs::is_symlink(scratch.Work("box/file")));
    CHECK(Get(scratch.Work("box/file")) == "new");
  }

  TEST_CASE("what is no tar stream, or a lie about sizes, is refused") {
    const Scratch scratch;
    const std::string good = Entry({.name = "file"}, "content");
    std::string broken = good;
    broken[0] = 'F';
    TarHeader large{.name = "file", .size = uint64_t{1} << 59U};
    TarHeader bomb{.name = "x", .size = uint64_t{1} << 30U};
    const std::string rows[] = {
        "",
        "hello",
        std::string(5000, 'x'),
        good,
        good.substr(0, 600),
        broken + kEnd,
        EncodeTarHeader(large) + "content" + kEnd,
        WithType(EncodeTarHeader(bomb), 'x') + kEnd,
        WithType(EncodeTarHeader(bomb), 'L') + kEnd,
        WithType(Entry({.name = "p"}, "99999999999999999999 path=x\n"), 'x') + good + kEnd,
        WithType(Entry({.name = "p"}, "5 x\n"), 'x') + good + kEnd,
        WithType(Entry({.name = "p"}, std::string("11 path=a\0\n", 11)), 'x') + good + kEnd,
        std::string(kTarBlock, '\0') + good + kEnd,
    };
    int row = 0;
    for (const std::string& archive : rows) {
      CAPTURE(row++);
      CHECK(absl::IsInvalidArgument(Unpack(scratch, "box", archive).status()));
    }
    CHECK(absl::IsInvalidArgument(
        Unpack(scratch, "box", Entry({.name = "a"}) + Entry({.name = "b"}) + kEnd, 1000, "one")
            .status()));
    CHECK(absl::IsInvalidArgument(Unpack(scratch, "box", kEnd, 1000, "a/b").status()));
    CHECK(absl::IsInvalidArgument(Unpack(scratch, "box", kEnd, 1000, "..").status()));
  }

  TEST_CASE("damaged archives end in an error or a result, never worse") {
    const Scratch scratch;
    Put(scratch.Outside("victim"), "safe");
    const std::string archive =
        Entry({.name = std::string(150, 'n')}, "long") + Entry({.name = "dir/file"}, "content") +
        Entry({.kind = TarKind::kLink, .name = "link", .link = "dir"}) +
        Entry({.kind = TarKind::kHardLink, .name = "hard", .link = "dir/file"}) + kEnd;
    std::minstd_rand random(1);
    for (int round = 0; round < 3000; ++round) {
      std::string damaged = archive;
      for (int i = 0; i < 3; ++i) {
        damaged[random() % damaged.size()] = static_cast<char>(random());
      }
      // Most damage would only meet the checksum.
      for (size_t at = 0; at + kTarBlock <= damaged.size(); at += kTarBlock) {
        if (damaged.compare(at + 257, 5, "ustar") == 0) {
          damaged.replace(at, kTarBlock,
                          WithType(damaged.substr(at, kTarBlock), damaged[at + 156]));
        }
      }
      (void)Unpack(scratch, "box", damaged);
    }
    CHECK(Get(scratch.Outside("victim")) == "safe");
    CHECK(std::distance(fs::directory_iterator(scratch.base()), {}) == 3);
  }
}

}  // namespace
}  // namespace creel::shim
