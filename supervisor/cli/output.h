#pragma once

#include <google/protobuf/message.h>
#include <google/protobuf/timestamp.pb.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/status.h"

namespace creel::cli {

// Prints "creel: `message`" to stderr, made safe, and returns `code`.
int Fail(std::string_view message, int code = 1);
int Fail(const absl::Status& status, int code = 1);
int Fail(const grpc::Status& status, int code = 1);

// The message as JSON on one line of stdout. Returns 0.
int PrintJson(const google::protobuf::Message& message);

// Rows under a heading, in columns as wide as they need to be; made safe for a terminal.
void PrintTable(const std::vector<std::string>& heading,
                const std::vector<std::vector<std::string>>& rows);

// "5s", "3m", "2h", "4d" since then; "-" if it is not set.
std::string Ago(const google::protobuf::Timestamp& then);
// "1.5 GiB".
std::string Size(uint64_t bytes);

// Writes all of it; false if that is not possible (a closed pipe).
bool WriteAll(int fd, std::string_view data);

}  // namespace creel::cli
