#pragma once

#include <archive.h>
#include <archive_entry.h>
#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include "supervisor/audit/signing_key.h"
#include "supervisor/evidence/bundle_verify.h"
#include "supervisor/evidence/bundle_writer.h"

namespace creel {

// A folder with a key, and bundles that are written there.
class BundleWorld {
 public:
  struct Member {
    int kind = 0;
    int64_t size = 0;
    std::string data;
    std::string link;
    uint32_t uid = 0;
  };

  BundleWorld() {
    char pattern[] = "/tmp/creel-bundle-XXXXXX";
    REQUIRE(::mkdtemp(pattern) != nullptr);
    top = pattern;
    absl::StatusOr<std::shared_ptr<const SigningKey>> made = SigningKey::LoadOrMake(top);
    REQUIRE(made.ok());
    key = *made;
    path = top + "/bundle.tar.zst";
  }
  ~BundleWorld() { std::filesystem::remove_all(top); }

  std::unique_ptr<BundleWriter> Begin(uint64_t max_bytes = 64u << 20,
                                      std::function<uint64_t()> room = {}) const {
    absl::StatusOr<std::unique_ptr<BundleWriter>> writer =
        BundleWriter::Create({.path = path,
                              .incident = "7",
                              .install_id = "0123456789abcdef",
                              .key = key,
                              .max_bytes = max_bytes,
                              .room = std::move(room),
                              .now = std::chrono::system_clock::now()});
    REQUIRE(writer.ok());
    return *std::move(writer);
  }
  [[nodiscard]] BundleReport Verify() const {
    absl::StatusOr<BundleReport> report = VerifyBundle(path, key->public_key());
    REQUIRE(report.ok());
    return *report;
  }
  // What any reader of tar finds in it.
  [[nodiscard]] std::map<std::string, Member> Unpack(size_t max_data = 1u << 20) const {
    std::map<std::string, Member> members;
    archive* const a = archive_read_new();
    archive_read_support_filter_zstd(a);
    archive_read_support_format_tar(a);
    archive_read_set_format_option(a, "tar", "hdrcharset", "BINARY");
    REQUIRE(archive_read_open_filename(a, path.c_str(), 65536) == ARCHIVE_OK);
    archive_entry* entry = nullptr;
    for (int got = archive_read_next_header(a, &entry); got == ARCHIVE_OK || got == ARCHIVE_WARN;
         got = archive_read_next_header(a, &entry)) {
      const char* const name = archive_entry_pathname(entry);
      Member& member = members[name == nullptr ? "" : name];
      member.kind = static_cast<int>(archive_entry_filetype(entry));
      member.size = archive_entry_size(entry);
      member.uid = static_cast<uint32_t>(archive_entry_uid(entry));
      const char* const link = archive_entry_symlink(entry);
      member.link = link == nullptr ? "" : link;
      const void* data = nullptr;
      size_t size = 0;
      la_int64_t offset = 0;
      while (archive_read_data_block(a, &data, &size, &offset) == ARCHIVE_OK) {
        if (member.data.size() < max_data) {
          member.data.append(static_cast<const char*>(data), size);
        }
      }
    }
    archive_read_free(a);
    return members;
  }
  [[nodiscard]] static std::string Read(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  static void Write(const std::string& file, const std::string& text) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << text;
  }

  std::string top;
  std::string path;
  std::shared_ptr<const SigningKey> key;
};

}  // namespace creel
