#pragma once

#include <string>

#include "supervisor/cli/mcp/json_rpc.h"

namespace creel::cli::mcp {

// Until 2025-11-25 a connection begins with `initialize`; from 2026-07-28 on every request says in
// its `_meta` which revision it speaks, and there is no handshake.
enum class Era { kHandshake, kPerRequest };

inline constexpr char kNewestRevision[] = "2026-07-28";
inline constexpr char kNewestHandshakeRevision[] = "2025-11-25";

// Which one a message speaks; the error is what to answer to a request that claims what we do not
// know, or claims it badly.
std::variant<Era, RpcError> EraOf(const Message& message);

// The answer to `initialize` and to `server/discover`.
std::variant<Json, RpcError> AnswerInitialize(const Json& params, const std::string& session);
Json AnswerDiscover(const std::string& session);

// Adds to a result what its era wants there. `cacheable`: it is one of those that clients may keep.
Json Dress(Json result, Era era, bool cacheable);

}  // namespace creel::cli::mcp
