#pragma once

#include <unistd.h>

#include <cctype>
#include <string>
#include <string_view>

#include "supervisor/cli/connection.h"
#include "supervisor/cli/output.h"

namespace creel::cli {

// `STATE_NAME` of an enum, without its prefix and in lower case.
inline std::string Word(const std::string& name, std::string_view prefix) {
  std::string word = name.starts_with(prefix) ? name.substr(prefix.size()) : name;
  for (char& letter : word) {
    letter = letter == '_' ? '-' : static_cast<char>(std::tolower(letter));
  }
  return word;
}

inline void Say(const std::string& line) { WriteAll(STDOUT_FILENO, line + "\n"); }

template <typename Request, typename Response>
using OperatorMethod = grpc::Status (operator_::v1::Operator::Stub::*)(grpc::ClientContext*,
                                                                       const Request&, Response*);

// Connects, makes one call, and tells the error if there is one.
template <typename Request, typename Response>
int Call(const Globals& globals, OperatorMethod<Request, Response> method, const Request& request,
         Response* response) {
  const auto stub = ConnectOperator(globals);
  if (!stub.ok()) {
    return Fail(stub.status());
  }
  grpc::ClientContext context;
  const grpc::Status status = ((**stub).*method)(&context, request, response);
  return status.ok() ? 0 : Fail(status);
}

// A command whose success needs no words, but for JSON.
template <typename Request, typename Response>
int Act(const Globals& globals, OperatorMethod<Request, Response> method, const Request& request,
        const std::string& done) {
  Response response;
  if (const int code = Call(globals, method, request, &response); code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  Say(done);
  return 0;
}

}  // namespace creel::cli
