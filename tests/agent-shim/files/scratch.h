#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include "agent-shim/files/reader.h"
#include "agent-shim/files/roots.h"

namespace creel::shim {

// A workspace, a second root and a place outside of both, removed at the end. The working directory
// of the process is left alone.
class Scratch {
 public:
  Scratch() {
    std::string pattern = (std::filesystem::temp_directory_path() / "creel-files-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    base_ = pattern;
    for (const char* name : {"workspace", "second", "outside"}) {
      std::filesystem::create_directory(base_ + "/" + name);
    }
    absl::StatusOr<FileRoots> opened = FileRoots::Open(base_ + "/workspace", {base_ + "/second"});
    REQUIRE(opened.ok());
    roots_.emplace(*std::move(opened));
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(base_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  [[nodiscard]] const FileRoots& roots() const { return *roots_; }
  // Host paths.
  [[nodiscard]] std::string Work(const std::string& name) const {
    return base_ + "/workspace/" + name;
  }
  [[nodiscard]] std::string Second(const std::string& name) const {
    return base_ + "/second/" + name;
  }
  [[nodiscard]] std::string Outside(const std::string& name) const {
    return base_ + "/outside/" + name;
  }
  [[nodiscard]] const std::string& base() const { return base_; }

 private:
  std::string base_;
  std::optional<FileRoots> roots_;
};

inline void Put(const std::string& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string Get(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Everything a producer gives.
template <typename Message>
absl::StatusOr<std::vector<Message>> Drain(
    absl::StatusOr<std::unique_ptr<Producer<Message>>> producer) {
  if (!producer.ok()) {
    return producer.status();
  }
  std::vector<Message> messages;
  const Cancel cancel;
  while (true) {
    Message message;
    const absl::StatusOr<Produced> produced = (*producer)->Next(message, cancel);
    if (!produced.ok()) {
      return produced.status();
    }
    if (*produced == Produced::kMessage || *produced == Produced::kLastMessage) {
      messages.push_back(std::move(message));
    }
    if (*produced == Produced::kLastMessage || *produced == Produced::kEnd) {
      return messages;
    }
  }
}

}  // namespace creel::shim
