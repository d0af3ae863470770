// Figures of the shim over one hop, without container or guard: time of a command, throughput of its
// output, idle memory. For people; not a test. Arguments: the binary of the shim.

#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
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

double ProcessorSeconds(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string word;
  double ticks = 0;
  for (int field = 1; file >> word && field <= 15; ++field) {
    if (field >= 14) {
      ticks += std::stod(word);
    }
  }
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
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
  // The processor time matters more than the clock on a machine that does other things as well.
  for (int i = 0; i < 4; ++i) {
    const double cpu = ProcessorSeconds(client.pid());
    const auto begin = Clock::now();
    const uint64_t bytes =
        RunOnce(client, "big" + std::to_string(i),
                {"dd", "if=/dev/zero", i % 2 == 0 ? "bs=1M" : "bs=8K",
                 i % 2 == 0 ? "count=1024" : "count=131072", "status=none"});
    const double seconds = Micros(Clock::now() - begin) / 1e6;
    const double gigabytes = static_cast<double>(bytes) / 1e9;
    printf("%-28s %.2f GB/s, %.2f s of the shim's time per GB\n",
           i % 2 == 0 ? "output in pieces of 1 MiB" : "output in pieces of 8 KiB",
           gigabytes / seconds, (ProcessorSeconds(client.pid()) - cpu) / gigabytes);
  }
  std::this_thread::sleep_for(std::chrono::seconds(3));
  print_status("idle, after");
  return 0;
}
