#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/audit/audit_log.h"

namespace creel {

inline constexpr std::string_view kPageKeyMetadata = "creel-page-key";
inline constexpr std::string_view kPageByMetadata = "creel-page-by";

// Has what is done at the operator's door told in the record: every call that changes something,
// when it comes and how it ends, whatever service it is of. Calls that only look are left out. An
// act is never held up by a record that cannot be written: to freeze and to close must work then
// too. `audit` must outlive the server.
//
// A call whose metadata holds `page_key` came by the page, and is told as done by the one whom its
// other metadata names; all others are told as done at the socket.
std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> RecordActs(
    AuditLog& audit, const std::string& page_key);

}  // namespace creel
