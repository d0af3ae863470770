#include "supervisor/cli/exec_command.h"

#include <doctest/doctest.h>
#include <pty.h>
#include <termios.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/supervisor/api/doors_house.h"
#include "tests/supervisor/cli/command.h"

using namespace creel;  // NOLINT: a test of one room
using std::chrono::steady_clock;

namespace {

using Words = std::vector<std::string>;

CommandResult Exec(const DoorsHouse& house, Words command, Words options = {},
                   std::string_view input = "", Words env = {}) {
  Words words = {"exec", "s"};
  words.insert(words.end(), options.begin(), options.end());
  words.push_back("--");
  words.insert(words.end(), command.begin(), command.end());
  return Creel(house.folder.path(), words, input, env);
}

std::string Pattern(size_t bytes) {
  std::string data(bytes, '\0');
  uint32_t state = 1;
  for (char& byte : data) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<char>(state >> 24);
  }
  return data;
}

// Reads a terminal until `text` has come.
bool ReadUntil(int fd, std::string& seen, const std::string& text) {
  const auto until = steady_clock::now() + std::chrono::seconds(10);
  while (seen.find(text) == std::string::npos && steady_clock::now() < until) {
    pollfd waiting{fd, POLLIN, 0};
    char buffer[4096];
    if (poll(&waiting, 1, 100) > 0) {
      const ssize_t got = read(fd, buffer, sizeof(buffer));
      if (got <= 0) {
        break;
      }
      seen.append(buffer, static_cast<size_t>(got));
    }
  }
  return seen.find(text) != std::string::npos;
}

}  // namespace

TEST_SUITE("creel exec") {
  TEST_CASE("it ends as the command did") {
    DoorsHouse house;
    struct Row {
      Words command;
      int code;
    };
    const Row rows[] = {
        {{"true"}, 0},
        {{"sh", "-c", "exit 77"}, 77},
        {{"sh", "-c", "kill -9 $$"}, 137},
        {{"sh", "-c", "kill -SEGV $$"}, 139},
        {{"no-such-program"}, 127},
        {{"/etc/passwd"}, 126},
    };
    for (const Row& row : rows) {
      CAPTURE(row.command[0]);
      const CommandResult result = Exec(house, row.command);
      CAPTURE(result.err);
      CHECK(result.code == row.code);
    }
  }

  TEST_CASE("both outputs arrive apart and whole") {
    DoorsHouse house;
    const CommandResult result = Exec(house, {"sh", "-c", "echo out; echo err >&2"});
    CHECK(result.out == "out\n");
    CHECK(result.err == "err\n");
    const CommandResult large =
        Exec(house, {"sh", "-c", "head -c 30000000 /dev/zero | tr '\\0' x"});
    CHECK(large.code == 0);
    CHECK(large.out == std::string(30'000'000, 'x'));
  }

  TEST_CASE("the command's words arrive as they were written") {
    DoorsHouse house;
    const Words words = {"[a,b]", "", "--", "-e", "--json", "a b", "$HOME", "*", "\xff\n", "{}"};
    // Not a valid string of the wire, and refused; the rest passes.
    Words command = {"printf", "<%s>"};
    std::string expected;
    for (const std::string& word : words) {
      if (word[0] != '\xff') {
        command.push_back(word);
        expected += "<" + word + ">";
      }
    }
    const CommandResult result = Exec(house, command);
    CHECK(result.code == 0);
    CHECK(result.out == expected);
  }

  TEST_CASE("-i pipes ten megabytes through, byte for byte") {
    DoorsHouse house;
    const std::string data = Pattern(10u << 20);
    const CommandResult result = Exec(house, {"cat"}, {"-i"}, data);
    CHECK(result.code == 0);
    CHECK(result.out == data);
  }

  TEST_CASE("without -i the command reads end of file, and ours is left alone") {
    DoorsHouse house;
    const CommandResult result = Exec(house, {"cat"}, {}, "not for it");
    CHECK(result.code == 0);
    CHECK(result.out.empty());
  }

  TEST_CASE("a command that ends before it has read its input ends us too") {
    DoorsHouse house;
    Command command(CreelWords({"exec", "-i", "s", "--", "sh", "-c", "exit 4"}),
                    CreelEnv(house.folder.path()));
    const auto before = steady_clock::now();
    const CommandResult result = command.Finish(Pattern(4u << 20));
    CHECK(result.code == 4);
    CHECK(steady_clock::now() - before < std::chrono::seconds(5));
  }

  TEST_CASE("variables come from words, our environment, a file and a descriptor") {
    DoorsHouse house;
    const std::string file = house.folder.path() + "/env";
    std::ofstream(file) << "# comment\n\nFROM_FILE=x=y\nPASSED\n";
    const CommandResult result =
        Exec(house, {"sh", "-c", "echo $WORD $OWN $FROM_FILE $PASSED ${ABSENT-none}"},
             {"-e", "WORD=[w,v]", "-e", "OWN", "-e", "ABSENT", "--env-file", file}, "",
             {"OWN=own", "PASSED=passed"});
    CHECK(result.out == "[w,v] own x=y passed none\n");
    const CommandResult from_fd =
        Exec(house, {"sh", "-c", "echo $SECRET"}, {"--env-fd", "0"}, "SECRET=s3\n");
    CHECK(from_fd.out == "s3\n");
    const CommandResult missing = Exec(house, {"true"}, {"--env-file", "/none"});
    CHECK(missing.code == 125);
    CHECK(missing.err.find("/none") != std::string::npos);
  }

  TEST_CASE("-w is where it runs, --timeout how long") {
    DoorsHouse house;
    std::filesystem::create_directory(house.files.path() + "/sub");
    CHECK(Exec(house, {"pwd"}, {"-w", "/workspace/sub"}).out == house.files.path() + "/sub\n");
    const auto before = steady_clock::now();
    const CommandResult result = Exec(house, {"sleep", "100"}, {"--timeout", "200ms"});
    CHECK(steady_clock::now() - before < std::chrono::seconds(5));
    CHECK(result.code == 124);
    CHECK(result.err.find("time") != std::string::npos);
    CHECK(Exec(house, {"true"}, {"--timeout", "soon"}).code == 125);
  }

  TEST_CASE("Ctrl-C stops the command; so does a reader that leaves") {
    DoorsHouse house;
    {
      Command command(CreelWords({"exec", "s", "--", "sh", "-c", "echo $$; exec sleep 100"}),
                      CreelEnv(house.folder.path()));
      REQUIRE(command.WaitFor("\n"));
      kill(command.pid(), SIGINT);
      const CommandResult result = command.Finish();
      CHECK(result.code == 143);
      CHECK(Eventually([&] { return kill(std::stoi(result.out), 0) != 0; }));
    }
    {
      Command command(CreelWords({"exec", "s", "--", "sh", "-c", "echo $$; exec yes"}),
                      CreelEnv(house.folder.path()));
      REQUIRE(command.WaitFor("\n"));
      command.CloseOut();
      CHECK(command.Finish().code == 141);
      CHECK(Eventually([&] { return house.gate.held() == 0; }));
    }
  }

  TEST_CASE("Ctrl-C passes input that the command does not take") {
    DoorsHouse house;
    Command command(CreelWords({"exec", "-i", "s", "--", "sh", "-c", "echo $$; exec sleep 100"}),
                    CreelEnv(house.folder.path()));
    REQUIRE(command.WaitFor("\n"));
    fcntl(command.in(), F_SETFL, O_NONBLOCK);
    const std::string piece(64u << 10, 'x');
    // Until nothing has moved for a while.
    int stuck = 0;
    while (stuck < 50) {
      stuck = write(command.in(), piece.data(), piece.size()) > 0 ? 0 : stuck + 1;
      usleep(10'000);
    }
    kill(command.pid(), SIGINT);
    const auto before = steady_clock::now();
    const CommandResult result = command.Finish();
    CHECK(steady_clock::now() - before < std::chrono::seconds(3));
    CHECK((result.code == 143 || result.code == 130));
    CHECK(Eventually([&] { return kill(std::stoi(result.out), 0) != 0; }));
  }

  TEST_CASE("killed outright, it leaves nothing running") {
    DoorsHouse house;
    Command command(CreelWords({"exec", "s", "--", "sh", "-c", "echo $$; exec sleep 100"}),
                    CreelEnv(house.folder.path()));
    REQUIRE(command.WaitFor("\n"));
    kill(command.pid(), SIGKILL);
    const CommandResult result = command.Finish();
    CHECK(result.code == 137);
    CHECK(Eventually([&] { return kill(std::stoi(result.out), 0) != 0; }));
  }

  TEST_CASE("a sandbox that is lost, or a refusal, is 125 with the reason") {
    DoorsHouse house;
    {
      Command command(CreelWords({"exec", "s", "--", "sh", "-c", "echo here; exec sleep 2"}),
                      CreelEnv(house.folder.path()));
      REQUIRE(command.WaitFor("here"));
      house.gate.Lose(absl::UnavailableError("container ended with exit code 137"));
      const CommandResult result = command.Finish();
      CHECK(result.code == 125);
      CHECK(result.err == "creel: container ended with exit code 137\n");
    }
    house.gate.Refuse(absl::PermissionDeniedError("rule 3: \x1b[31mno"));
    const CommandResult refused = Exec(house, {"true"});
    CHECK(refused.code == 125);
    CHECK(refused.err == "creel: rule 3: \\x1b[31mno\n");
  }

  TEST_CASE("misuse is 2, or 125 where a script expects a command's status") {
    DoorsHouse house;
    CHECK(Creel(house.folder.path(), {"exec"}).code == 2);
    CHECK(Creel(house.folder.path(), {"exec", "s"}).code == 2);
    const CommandResult loose = Creel(house.folder.path(), {"exec", "s", "ls", "-l"});
    CHECK(loose.code == 2);
    CHECK(loose.err.find("put -- before the command") != std::string::npos);
    CHECK(Creel(house.folder.path(), {"exec", "s", "--"}).code == 2);
    const CommandResult no_terminal = Exec(house, {"true"}, {"-t"});
    CHECK(no_terminal.code == 125);
    CHECK(no_terminal.err.find("-t needs a terminal") != std::string::npos);
    const CommandResult nobody = Creel("/nonexistent", {"exec", "s", "--", "true"});
    CHECK(nobody.code == 125);
    CHECK(nobody.err.find("start creeld") != std::string::npos);
    const CommandResult far = Creel("/" + std::string(120, 'x'), {"exec", "s", "--", "true"});
    CHECK(far.code == 125);
    CHECK(far.err.find("shorter") != std::string::npos);
  }

  TEST_CASE("-t is a terminal: echo, colours' TERM, size, resize, Ctrl-C, and put back after") {
    DoorsHouse house;
    int master = -1;
    winsize size{};
    size.ws_row = 40;
    size.ws_col = 100;
    Words words = CreelWords({"exec", "-t", "s", "--", "sh", "-c",
                              "stty size; echo $TERM; trap 'stty size' WINCH; read x; echo got $x; "
                              "trap 'echo interrupted; exit 9' INT; echo wait; "
                              "while :; do sleep 0.1; done"});
    Words env = CreelEnv(house.folder.path(), {"TERM=xterm-256color"});
    std::vector<char*> argv;
    std::vector<char*> envp;
    for (std::string& word : words) {
      argv.push_back(word.data());
    }
    for (std::string& pair : env) {
      envp.push_back(pair.data());
    }
    argv.push_back(nullptr);
    envp.push_back(nullptr);
    const pid_t pid = forkpty(&master, nullptr, nullptr, &size);
    if (pid == 0) {
      execve(argv[0], argv.data(), envp.data());
      _exit(121);
    }
    std::string seen;
    CHECK(ReadUntil(master, seen, "40 100"));
    CHECK(ReadUntil(master, seen, "xterm-256color"));
    termios during{};
    tcgetattr(master, &during);
    CHECK((during.c_lflag & ICANON) == 0);
    size.ws_col = 120;
    ioctl(master, TIOCSWINSZ, &size);
    usleep(300'000);
    (void)!write(master, "word\r", 5);
    CHECK(ReadUntil(master, seen, "40 120"));
    CHECK(ReadUntil(master, seen, "got"));
    CHECK(ReadUntil(master, seen, "wait"));
    (void)!write(master, "\x03", 1);
    CHECK(ReadUntil(master, seen, "interrupted"));
    int status = 0;
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 9);
    termios after{};
    tcgetattr(master, &after);
    CHECK((after.c_lflag & ICANON) != 0);
    close(master);
  }

  TEST_CASE("as a whole process it is quick") {
    DoorsHouse house;
    std::vector<double> times;
    for (int i = 0; i < 30; ++i) {
      const auto before = steady_clock::now();
      CHECK(Exec(house, {"true"}).code == 0);
      times.push_back(
          std::chrono::duration<double, std::milli>(steady_clock::now() - before).count());
    }
    std::sort(times.begin(), times.end());
    MESSAGE("creel exec K -- true, median ms: " << times[times.size() / 2]);
  }

  TEST_CASE("a process can be named, and its variables may have several lines") {
    DoorsHouse house;
    const std::string file = house.folder.path() + "/env";
    std::ofstream(file) << std::string("A=one\ntwo\0# B=no comment\0C=3\0", 29);
    const CommandResult named = Exec(house, {"env"}, {"--process-id", "p-1", "--env-file", file});
    CHECK(named.code == 0);
    CHECK(named.out.find("A=one\ntwo\n") != std::string::npos);
    CHECK(named.out.find("# B=no comment\n") != std::string::npos);
    CHECK(named.out.find("C=3\n") != std::string::npos);
    CHECK(Exec(house, {"true"}, {"--process-id", "no/name"}).code == 125);
  }

  TEST_CASE("--pty gives a command a terminal where we have none") {
    DoorsHouse house;
    const CommandResult size =
        Exec(house, {"sh", "-c", "stty size; test -t 0 && echo yes"}, {"--pty", "33x101"});
    CHECK(size.out.find("33 101") != std::string::npos);
    CHECK(size.out.find("yes") != std::string::npos);
    for (const char* wrong : {"33", "0x9", "axb", "3x4x5"}) {
      CAPTURE(wrong);
      CHECK(Exec(house, {"true"}, {"--pty", wrong}).code == 125);
    }
  }
}
