#include "supervisor/cli/record_commands.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grpcpp/channel.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "creel/operator/v1/record.grpc.pb.h"
#include "supervisor/base/escape.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/cli/output.h"
#include "supervisor/cli/verify_program.h"

namespace creel::cli {
namespace {

using operator_::v1::ReadRecordRequest;
using operator_::v1::ReadRecordResponse;
using operator_::v1::Record;
using operator_::v1::RecordLine;

void Print(const std::string& line) { WriteAll(STDOUT_FILENO, line + "\n"); }

// One line of the record as a line for people: time, what happened, to whom, and the rest.
std::string Human(const RecordLine& line) {
  std::string at;
  std::string event;
  std::string subject;
  std::string rest;
  for (const auto& field : line.fields()) {
    const std::string& key = field.key();
    const std::string value = Printable(field.value(), 512);
    if (key == "at") {
      at = value.substr(0, 23);
    } else if (key == "event") {
      event = value;
    } else if (key == "session" || key == "sender" || key == "tool") {
      subject += (subject.empty() ? "" : " ") + value;
    } else if (key != "seq" && key != "prev" && key != "hash" && key != "container" &&
               key != "verdict") {
      rest += fmt::format("{}{}={}", rest.empty() ? "" : "  ", key, value);
    }
  }
  return fmt::format("{}  {:<16} {}{}{}", at, event, subject,
                     subject.empty() || rest.empty() ? "" : "  ", rest);
}

// Hands over every line that comes.
template <typename OnLine>
int ReadAll(const Globals& globals, const ReadRecordRequest& request, const OnLine& on_line) {
  const auto channel = OperatorChannel(globals);
  if (!channel.ok()) {
    return Fail(channel.status());
  }
  const auto stub = Record::NewStub(*channel);
  grpc::ClientContext context;
  const auto reader = stub->ReadRecord(&context, request);
  ReadRecordResponse response;
  while (reader->Read(&response)) {
    for (const RecordLine& line : response.lines()) {
      if (!on_line(line)) {
        context.TryCancel();
        return Fail("the output cannot be written");
      }
    }
  }
  const grpc::Status status = reader->Finish();
  return status.ok() ? 0 : Fail(status);
}

int Show(const Globals& globals, const ReadRecordRequest& request) {
  return ReadAll(globals, request, [&](const RecordLine& line) {
    return WriteAll(STDOUT_FILENO, (globals.json ? line.json() : Human(line)) + "\n");
  });
}

int Export(const Globals& globals, const ReadRecordRequest& request, const std::string& path) {
  UniqueFd file;
  int fd = STDOUT_FILENO;
  if (path != "-") {
    file.reset(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file.valid()) {
      return Fail(ErrnoStatus(errno, fmt::format("make '{}'", path)));
    }
    fd = file.get();
  }
  uint64_t lines = 0;
  const int code = ReadAll(globals, request, [&](const RecordLine& line) {
    ++lines;
    return WriteAll(fd, line.json() + "\n");
  });
  if (code == 0 && path != "-") {
    Print(fmt::format("{} records in {}; check them anywhere: creel-verify record {} --key KEY",
                      lines, path, path));
  }
  return code;
}

int VerifyOnline(const Globals& globals) {
  const auto channel = OperatorChannel(globals);
  if (!channel.ok()) {
    Fail(channel.status());
    return Fail("without creeld: creel audit verify --folder STATE_DIR/record --key PUBLIC_KEY");
  }
  const auto stub = Record::NewStub(*channel);
  grpc::ClientContext context;
  operator_::v1::VerifyRecordResponse response;
  const grpc::Status status = stub->VerifyRecord(&context, {}, &response);
  if (!status.ok()) {
    return Fail(status);
  }
  if (globals.json) {
    PrintJson(response);
    return response.sound() ? 0 : 1;
  }
  for (const std::string& note : response.notes()) {
    Print("note: " + Printable(note, 1024));
  }
  if (!response.sound()) {
    Print(fmt::format("BAD: {} ({}, line {})", Printable(response.problem(), 1024),
                      Printable(response.file(), 256), response.line()));
    return 1;
  }
  Print(fmt::format("sound: records {} to {}, {} checkpoints, the last at {}; newest hash {}",
                    response.first_seq(), response.last_seq(), response.checkpoints(),
                    response.last_checkpoint(), response.last_hash()));
  return 0;
}

int Key(const Globals& globals) {
  const auto channel = OperatorChannel(globals);
  if (!channel.ok()) {
    return Fail(channel.status());
  }
  const auto stub = Record::NewStub(*channel);
  grpc::ClientContext context;
  operator_::v1::GetRecordKeyResponse response;
  const grpc::Status status = stub->GetRecordKey(&context, {}, &response);
  if (!status.ok()) {
    return Fail(status);
  }
  if (globals.json) {
    return PrintJson(response);
  }
  WriteAll(STDOUT_FILENO, response.public_key());
  WriteAll(STDERR_FILENO, fmt::format("key {}; keep a copy on another machine\n",
                                      Printable(response.key_id(), 64)));
  return 0;
}

}  // namespace

void AddRecordCommands(CLI::App& app, const Globals& globals, int& code) {
  struct Options {
    std::string session;
    std::string sender;
    std::string sandbox;
    std::string tool;
    std::string verdict;
    std::string event;
    std::string since;
    std::string until;
    std::string incident;
    uint32_t limit = 50;
    bool follow = false;
    std::string file;
    std::string folder;
    std::string key;
    std::string head;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* const audit = app.add_subcommand("audit", "Look into the record, and check it");
  audit->require_subcommand(1);

  const auto filters = [options](CLI::App* command) {
    command->add_option("--session", options->session, "A session key");
    command->add_option("--sender", options->sender, "Who asked, channel:id");
    command->add_option("--sandbox", options->sandbox, "A sandbox id");
    command->add_option("--tool", options->tool, "exec, read, write, …");
    command->add_option("--verdict", options->verdict, "allow, deny or ask")
        ->check(CLI::IsMember({"allow", "deny", "ask"}));
    command->add_option("--event", options->event, "A kind such as call.denied, or call. for all");
    command->add_option("--since", options->since, "A time, such as 2026-11-27T02:42");
    command->add_option("--until", options->until, "A time; not included");
    command->add_option("--incident", options->incident, "An incident's number");
  };
  const auto request = [options] {
    ReadRecordRequest message;
    message.set_session(options->session);
    message.set_sender(options->sender);
    message.set_sandbox(options->sandbox);
    message.set_tool(options->tool);
    message.set_verdict(options->verdict);
    message.set_event(options->event);
    message.set_since(options->since);
    message.set_until(options->until);
    message.set_incident(options->incident);
    return message;
  };

  CLI::App* const show = audit->add_subcommand("show", "Show the newest records");
  filters(show);
  show->add_option("-n,--limit", options->limit, "How many; 0: all (default 50)");
  show->add_flag("-f,--follow", options->follow, "And those that come, until interrupted");
  show->callback([&globals, &code, options, request] {
    ReadRecordRequest message = request();
    message.set_limit(options->limit);
    message.set_follow(options->follow);
    code = Show(globals, message);
  });

  CLI::App* const verify = audit->add_subcommand("verify", "Check that nothing was changed");
  verify->add_option("--folder", options->folder,
                     "Without creeld: the record's folder, or a file that was exported");
  verify->add_option("--key", options->key, "With --folder: the public key (PEM)");
  verify->add_option("--head", options->head, "With --folder: NUMBER:HASH of the newest record");
  verify->callback([&globals, &code, options] {
    if (options->folder.empty()) {
      code = VerifyOnline(globals);
      return;
    }
    std::vector<std::string> arguments{"record", options->folder};
    if (!options->key.empty()) {
      arguments.insert(arguments.end(), {"--key", options->key});
    }
    if (!options->head.empty()) {
      arguments.insert(arguments.end(), {"--head", options->head});
    }
    code = BecomeVerify(arguments);
  });

  CLI::App* const export_command =
      audit->add_subcommand("export", "Write records, as they stand, into a new file");
  filters(export_command);
  export_command->add_option("FILE", options->file, "The file, or - for stdout")->required();
  export_command->callback(
      [&globals, &code, options, request] { code = Export(globals, request(), options->file); });

  audit->add_subcommand("key", "Print the public key that checkpoints are signed with")
      ->callback([&globals, &code] { code = Key(globals); });
}

}  // namespace creel::cli
