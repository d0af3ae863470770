// read, write and edit: files of the sandbox.
#include <fmt/format.h>
#include <google/protobuf/stubs/strutil.h>

#include <array>

#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/cli/mcp/arguments.h"
#include "supervisor/cli/mcp/base64.h"
#include "supervisor/cli/mcp/tools.h"

namespace creel::cli::mcp {
namespace {

constexpr uint64_t kDefaultRead = 64u << 10;
// Images are of no use in parts.
constexpr uint64_t kMaxImage = 4u << 20;
constexpr size_t kPiece = 512u << 10;

const char* ImageType(std::string_view data) {
  if (data.starts_with("\x89PNG\r\n\x1a\n")) {
    return "image/png";
  }
  if (data.starts_with("\xff\xd8\xff")) {
    return "image/jpeg";
  }
  if (data.starts_with("GIF87a") || data.starts_with("GIF89a")) {
    return "image/gif";
  }
  if (data.size() > 12 && data.starts_with("RIFF") && data.substr(8, 4) == "WEBP") {
    return "image/webp";
  }
  return nullptr;
}

// How many bytes at the end begin a character of UTF-8 that is not complete.
size_t IncompleteAtEnd(std::string_view data) {
  for (size_t back = 1; back <= 3 && back <= data.size(); ++back) {
    const auto byte = static_cast<unsigned char>(data[data.size() - back]);
    if ((byte & 0xc0) == 0x80) {
      continue;
    }
    const size_t length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

bool IsText(std::string_view data) {
  return data.find('\0') == std::string_view::npos &&
         google::protobuf::internal::IsStructurallyValidUTF8(data.data(),
                                                             static_cast<int>(data.size()));
}

struct Content {
  uint64_t file_size = 0;
  std::string data;
};

absl::StatusOr<Content> Fetch(ToolCall& call, const std::string& path, uint64_t offset,
                              uint64_t length) {
  gateway::v1::ReadFileRequest request;
  call.Fill(*request.mutable_context());
  request.mutable_args()->set_path(path);
  request.mutable_args()->set_offset(offset);
  request.mutable_args()->set_length(length);
  ASSIGN_OR_RETURN(const auto stub, call.door.Stub());
  CancellableContext context(call.cancellation);
  const auto reader = stub->ReadFile(context.get(), request);
  Content content;
  gateway::v1::ReadFileResponse response;
  while (reader->Read(&response)) {
    if (response.chunk().has_info()) {
      content.file_size = response.chunk().info().size();
    }
    content.data += response.chunk().data();
  }
  RETURN_IF_ERROR(FromGrpc(reader->Finish()));
  return content;
}

absl::StatusOr<ToolResult> Read(ToolCall& call) {
  const Arguments arguments(call.arguments);
  const std::string path = arguments.Text("path");
  const uint64_t offset = arguments.Number("offset", 0);
  const uint64_t limit = arguments.Number("max_bytes", kDefaultRead);
  ASSIGN_OR_RETURN(Content content, Fetch(call, path, offset, limit));
  const char* const image = offset == 0 ? ImageType(content.data) : nullptr;
  if (image != nullptr && content.file_size <= kMaxImage) {
    if (content.data.size() < content.file_size) {
      ASSIGN_OR_RETURN(content, Fetch(call, path, 0, kMaxImage));
    }
    ToolResult result;
    result.content.push_back(
        {{"type", "image"}, {"data", Base64(content.data)}, {"mimeType", image}});
    result.structured = {{"size", content.file_size}, {"binary", true}};
    return result;
  }
  const bool more = offset + content.data.size() < content.file_size;
  if (more) {
    content.data.resize(content.data.size() - IncompleteAtEnd(content.data));
  }
  const uint64_t next = offset + content.data.size();
  Json structured = {{"size", content.file_size}, {"next_offset", next}, {"truncated", more}};
  if (!IsText(content.data)) {
    structured["binary"] = true;
    ToolResult result =
        ToolResult::OfText(fmt::format("bytes {} to {} of {} of a binary file, in base64", offset,
                                       next, content.file_size),
                           std::move(structured));
    result.content.push_back({{"type", "resource"},
                              {"resource",
                               {{"uri", "creel-file:" + path},
                                {"mimeType", "application/octet-stream"},
                                {"blob", Base64(content.data)}}}});
    return result;
  }
  structured["binary"] = false;
  if (more) {
    content.data +=
        fmt::format("{}[{} of {} bytes; read on with offset {}]",
                    content.data.ends_with('\n') ? "" : "\n", next, content.file_size, next);
  }
  return ToolResult::OfText(std::move(content.data), std::move(structured));
}

absl::StatusOr<ToolResult> Write(ToolCall& call) {
  const Arguments arguments(call.arguments);
  std::string data = arguments.Text("content");
  if (arguments.Text("encoding", "utf-8") == "base64") {
    const std::optional<std::string> decoded = DecodeBase64(data);
    if (!decoded) {
      return absl::InvalidArgumentError("`content` is not base64");
    }
    data = *decoded;
  }
  gateway::v1::WriteFileRequest request;
  gateway::v1::WriteFileStart& start = *request.mutable_start();
  call.Fill(*start.mutable_context());
  start.mutable_args()->set_path(arguments.Text("path"));
  start.mutable_args()->set_make_parents(arguments.Flag("make_parents", true));
  start.mutable_args()->set_exclusive(arguments.Flag("exclusive"));
  start.mutable_args()->set_append(arguments.Flag("append"));
  if (arguments.Flag("executable")) {
    start.mutable_args()->set_mode(0755);
  }
  gateway::v1::WriteFileResponse response;
  ASSIGN_OR_RETURN(const auto stub, call.door.Stub());
  CancellableContext context(call.cancellation);
  const auto writer = stub->WriteFile(context.get(), &response);
  bool open = writer->Write(request);
  for (std::string_view rest = data; open && !rest.empty();) {
    request.set_data(std::string(rest.substr(0, kPiece)));
    rest.remove_prefix(std::min(kPiece, rest.size()));
    open = writer->Write(request);
  }
  writer->WritesDone();
  RETURN_IF_ERROR(FromGrpc(writer->Finish()));
  const auto& written = response.result();
  return ToolResult::OfText(
      fmt::format("{} '{}', {} bytes", written.created() ? "made" : "wrote",
                  Printable(arguments.Text("path"), 400), written.info().size()),
      {{"created", written.created()}, {"size", written.info().size()}});
}

absl::StatusOr<ToolResult> Edit(ToolCall& call) {
  const Arguments arguments(call.arguments);
  gateway::v1::EditFileRequest request;
  call.Fill(*request.mutable_context());
  request.mutable_args()->set_path(arguments.Text("path"));
  request.mutable_args()->set_old_text(arguments.Text("old_text"));
  request.mutable_args()->set_new_text(arguments.Text("new_text"));
  request.mutable_args()->set_replace_all(arguments.Flag("replace_all"));
  gateway::v1::EditFileResponse response;
  ASSIGN_OR_RETURN(const auto stub, call.door.Stub());
  CancellableContext context(call.cancellation);
  RETURN_IF_ERROR(FromGrpc(stub->EditFile(context.get(), request, &response)));
  const uint64_t matches = response.result().matches();
  return ToolResult::OfText(
      fmt::format("replaced {} {} in '{}'", matches, matches == 1 ? "occurrence" : "occurrences",
                  Printable(arguments.Text("path"), 400)),
      {{"matches", matches}, {"size", response.result().info().size()}});
}

}  // namespace

std::vector<Tool> FileTools() {
  return {{.name = "read",
           .title = "Read a file",
           .description = "Reads a file of the sandbox. Images come as images, other binary files "
                          "in base64. A long "
                          "file is cut, and the end says how to read on.",
           .schema = Schema(R"({"required": ["path"], "properties": {
         "path": {"type": "string", "minLength": 1,
                  "description": "Absolute, or relative to the workspace"},
         "offset": {"type": "integer", "minimum": 0, "description": "First byte; default: 0"},
         "max_bytes": {"type": "integer", "minimum": 16, "maximum": 1048576,
                       "description": "Default: 65536"}}})"),
           .annotations = {{"readOnlyHint", true}, {"openWorldHint", false}},
           .run = Read},
          {.name = "write",
           .title = "Write a file",
           .description =
               "Writes a whole file of the sandbox, at once or not at all, and makes missing "
               "folders. An existing file keeps its mode.",
           .schema = Schema(R"({"required": ["path", "content"], "properties": {
         "path": {"type": "string", "minLength": 1},
         "content": {"type": "string"},
         "encoding": {"type": "string", "enum": ["utf-8", "base64"], "description": "Default: utf-8"},
         "exclusive": {"type": "boolean", "description": "Fail if it is there already"},
         "append": {"type": "boolean", "description": "Add at the end instead of replacing"},
         "executable": {"type": "boolean", "description": "Mode 0755 for a new file"},
         "make_parents": {"type": "boolean", "description": "Default: true"}}})"),
           .annotations = {{"readOnlyHint", false},
                           {"destructiveHint", true},
                           {"idempotentHint", true},
                           {"openWorldHint", false}},
           .run = Write},
          {.name = "edit",
           .title = "Edit a file",
           .description =
               "Replaces a text that occurs exactly once by another; with replace_all, every "
               "occurrence.",
           .schema = Schema(R"({"required": ["path", "old_text", "new_text"], "properties": {
         "path": {"type": "string", "minLength": 1},
         "old_text": {"type": "string", "minLength": 1},
         "new_text": {"type": "string"},
         "replace_all": {"type": "boolean"}}})"),
           .annotations = {{"readOnlyHint", false},
                           {"destructiveHint", true},
                           {"idempotentHint", false},
                           {"openWorldHint", false}},
           .run = Edit}};
}

}  // namespace creel::cli::mcp
