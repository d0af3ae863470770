#pragma once

#include <string>
#include <string_view>

#include "supervisor/base/status.h"
#include "supervisor/config/config.h"

namespace creel {

// Reads and checks the configuration of `file`. Errors (kInvalidArgument) name file, line, column
// and key, for an unknown key the nearest known one; up to 20 come at once, one a line. What the
// file leaves out has its default. kNotFound, kPermissionDenied: the file cannot be read.
absl::StatusOr<Config> LoadConfig(const std::string& file);

// The same for `text`, which errors call `file`.
absl::StatusOr<Config> ParseConfig(std::string_view text, const std::string& file);

// A file of all keys with their defaults and what they mean, every key commented out.
std::string DefaultConfigYaml();

// docs/configuration.md.
std::string ConfigReference();

}  // namespace creel
