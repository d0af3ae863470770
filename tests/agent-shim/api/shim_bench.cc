// Figures of the shim over one hop, without container or guard: time of a command, throughput of its
// output, idle memory. For people; not a test. Arguments: the binary of the shim.

#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "tests/agent-shim/api/shim_client.h"

namespace {

using creel::shim::ShimClient;
using Clock = std::chrono::steady_clock;

double Micros(Clock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

void Print(const char* what, std::vector<double> values) {
  std::sort(values.begin(), values.end());
  printf("%-28s median %8.0f us   p95 %8.0f us\n", what, values[values.size() / 2],
         values[values.size() * 95 / 100]);
}

uint64_t RunOnce(ShimClient& client, const std::string& id, std::vector<std::string> argv) {
  grpc::ClientContext context;
  auto stream = client.stub().Run(&context);
  creel::shim::v1::RunRequest request;
  request.mutable_start()->set_process_id(id);
  for (const std::string& argument : argv) {
    request.mutable_start()->mutable_spec()->add_argv(argument);
  }
  stream->Write(request);
  uint64_t bytes = 0;
  creel::shim::v1::RunResponse response;
  while (stream->Read(&response)) {
    bytes += response.event().output().data().size();
  }
  stream->Finish();
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fputs("usage: shim_bench CREEL_SHIM\n", stderr);
    return 2;
  }
  ShimClient client(argv[1]);
  creel::shim::v1::HelloResponse hello;
  if (!client.Hello(true, &hello).ok()) {
    fputs("Hello failed\n", stderr);
    return 1;
  }
  const auto print_status = [&client](const char* when) {
    grpc::ClientContext context;
    creel::shim::v1::GetStatusResponse status;
    client.stub().GetStatus(&context, {}, &status);
    printf("%-28s %.2f MB private, %u threads, %u descriptors\n", when,
           static_cast<double>(status.private_bytes()) / 1e6, status.threads(),
           status.open_files());
  };
  print_status("idle, before");
  std::vector<double> bare;
  std::vector<double> hop;
  for (int i = 0; i < 500; ++i) {
    const auto begin = Clock::now();
    pid_t pid = 0;
    char program[] = "true";
    char* args[] = {program, nullptr};
    posix_spawnp(&pid, "true", nullptr, nullptr, args, environ);
    waitpid(pid, nullptr, 0);
    bare.push_back(Micros(Clock::now() - begin));
    const auto middle = Clock::now();
    RunOnce(client, "t" + std::to_string(i), {"true"});
    hop.push_back(Micros(Clock::now() - middle));
  }
  Print("bare spawn of true", bare);
  Print("true over one hop", hop);
  for (int i = 0; i < 3; ++i) {
    const auto begin = Clock::now();
    const uint64_t bytes = RunOnce(client, "big" + std::to_string(i),
                                   {"head", "-c", "1073741824", "/dev/zero"});
    const double seconds = Micros(Clock::now() - begin) / 1e6;
    printf("%-28s %.2f GB/s\n", "output of one command", static_cast<double>(bytes) / seconds / 1e9);
  }
  std::this_thread::sleep_for(std::chrono::seconds(3));
  print_status("idle, after");
  return 0;
}
