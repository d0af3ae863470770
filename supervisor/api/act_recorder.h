#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <vector>

#include "supervisor/audit/audit_log.h"

namespace creel {

// Has what is done at the operator's door told in the record: every call that changes something,
// when it comes and how it ends, whatever service it is of. Calls that only look are left out. An
// act is never held up by a record that cannot be written: to freeze and to close must work then
// too. `audit` must outlive the server.
std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> RecordActs(
    AuditLog& audit);

}  // namespace creel
