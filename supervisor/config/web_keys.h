#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/config/key_table.h"
#include "supervisor/config/web_config.h"

namespace creel {

// The keys of the section `web`, in the order of the documentation.
std::vector<KeySpec> WebKeys();

// The section as it was given.
WebConfig WebConfigOf(const Config& config);

// What no single key of the section can know.
KeyError CheckWeb(const Config& config);

// Takes `127.0.0.1:773` or `[::1]:773` apart; nothing if it is neither.
std::optional<std::pair<std::string, uint16_t>> SplitListen(const std::string& listen);

}  // namespace creel
