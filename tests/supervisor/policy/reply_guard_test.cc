#include "supervisor/policy/reply_guard.h"

#include <doctest/doctest.h>
#include <time.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "supervisor/base/crypto.h"

namespace creel {
namespace {

constexpr char kSecret[] = "s3cr3t/Pass+word=0042";

const ReplyRules kAll{};  // masks everything

const ReplyGuard& Guard() {
  static const auto& guard = *new ReplyGuard({kSecret, "short", "another-known-token-77"},
                                             {"/srv/creel"}, OnSecret::kRedact);
  return guard;
}

std::string Kinds(const ReplyAnswer& answer) {
  std::string kinds;
  for (const ReplyFinding& finding : answer.findings) {
    kinds += (kinds.empty() ? "" : ",") + finding.kind;
  }
  return kinds;
}

std::string PercentEncoded(const std::string& text, bool all) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (plain && !all) {
      out += c;
    } else {
      constexpr char kHex[] = "0123456789ABCDEF";
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

// `text` with `between` after every `every` bytes.
std::string Broken(const std::string& text, size_t every, const std::string& between) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    out += text[i];
    out += (i + 1) % every == 0 ? between : "";
  }
  return out;
}

// What this thread has used of a processor, so that a busy machine does not count.
std::chrono::nanoseconds ThreadTime() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

TEST_SUITE("ReplyGuard") {
  TEST_CASE("a known secret does not leave, however it is written") {
    const std::string secret = kSecret;
    std::string upper_hex = Hex(secret);
    for (char& c : upper_hex) {
      c = static_cast<char>(std::toupper(c));
    }
    std::string mixed_hex = Hex(secret);
    for (size_t i = 1; i < mixed_hex.size(); i += 3) {
      mixed_hex[i] = static_cast<char>(std::toupper(mixed_hex[i]));
    }
    const std::vector<std::string> forms{
        secret,
        Hex(secret),
        upper_hex,
        Base64(secret, false),
        Base64(secret, true),
        Base64("x" + secret, false),
        Base64("xy" + secret + "and more", false),
        Base64("user:" + secret, true),
        PercentEncoded(secret, false),
        PercentEncoded(secret, true),
        Broken(secret, 5, "\n"),
        Broken(secret, 1, " "),
        Broken(secret, 3, "\r\n  "),
        Broken(secret, 4, "\xe2\x80\x8b"),
        Broken(secret, 4, "\xc2\xad"),
        Broken(Hex(secret), 2, " "),
        mixed_hex,
        Broken(Hex(secret), 2, ":"),
        Broken(mixed_hex, 2, "-"),
        Broken(secret, 4, "\xe2\x81\xa1"),
        Broken(secret, 4, "\xef\xb8\x8f"),
        Broken(secret, 4, "\xe2\x80\xaf"),
        Broken(secret, 4, "\xcd\x8f"),
        Broken(secret, 4, "\xf3\xa0\x81\x81"),
        Broken(Base64(secret, false), 7, "\n"),
        Broken(PercentEncoded(secret, true), 6, "\n"),
    };
    for (const std::string& form : forms) {
      CAPTURE(form);
      const std::string text = "It is: " + form + " so there.";
      const ReplyAnswer answer = Guard().Check(text, kAll);
      CHECK(answer.verdict == ReplyVerdict::kRedact);
      CHECK(answer.rule == "reply.secrets");
      CHECK(Kinds(answer).find("secret.known") != std::string::npos);
      CHECK(answer.text.find(form) == std::string::npos);
      CHECK(answer.text.starts_with("It is: "));
      CHECK(answer.text.ends_with(" so there."));
      // Nothing of what was found is repeated.
      CHECK(answer.reason.find(secret) == std::string::npos);
      // And what is sent holds nothing that is found again.
      CHECK(Guard().Check(answer.text, kAll).verdict == ReplyVerdict::kAllow);
    }
  }

  TEST_CASE("a secret goes to nobody, and with on_secret deny nothing of the reply does") {
    const ReplyRules owner{.mask_keys = false, .mask_paths = false, .mask_listings = false};
    CHECK(Guard().Check(kSecret, owner).verdict == ReplyVerdict::kRedact);
    const ReplyGuard strict({kSecret}, {}, OnSecret::kDeny);
    const ReplyAnswer answer = strict.Check(std::string("see ") + kSecret, owner);
    CHECK(answer.verdict == ReplyVerdict::kDeny);
    CHECK(answer.text.empty());
    CHECK(answer.reason.find(kSecret) == std::string::npos);
  }

  TEST_CASE("what is shaped like a key is known by its shape") {
    const struct {
      const char* text;
      const char* kind;
    } kRows[] = {
        {"sk-ant-api03-AbCdEf0123456789AbCdEf0123456789", "key.anthropic"},
        {"sk-proj-AbCdEf0123456789AbCdEf0123456789", "key.openai"},
        {"sk-AbCdEf0123456789AbCdEf01", "key.openai"},
        {"key=sk_live_51H0123456789abcdef", "key.stripe"},
        {"ghp_0123456789abcdefghijABCDEFGHIJ012345", "key.github"},
        {"github_pat_11ABCDEFG0123456789_abcdefghijklmnop", "key.github"},
        {"glpat-0123456789abcdefghij", "key.gitlab"},
        {"xoxb-123456789012-123456789012-AbCdEfGhIjKlMnOpQrStUvWx", "key.slack"},
        {"AKIAIOSFODNN7EXAMPLE", "key.aws"},
        {"AIzaSyA-0123456789abcdefghijklmnopqrstu", "key.google"},
        {"ya29.a0AfH6SMBx0123456789abcdef", "key.google"},
        {"npm_0123456789abcdefghijABCDEFGHIJ012345", "key.npm"},
        {"hf_abcdefghijklmnopqrstuvwxyz0123456789", "key.huggingface"},
        {"gsk_abcdefghijklmnopqrstuvwxyz0123456789", "key.groq"},
        {"123456789:AAF0123456789abcdefghijABCDEFGHIJ01", "key.telegram"},
        {"MTIzNDU2Nzg5MDEyMzQ1Njc4.GAbCdE.0123456789abcdefghijABCDEFGHIJ", "key.discord"},
        {"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N", "key.jwt"},
        {"-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----", "key.pem"},
        {"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n", "key.pem"},
        {"postgres://app:Tr0ub4dor@db.internal/app", "key.url-password"},
        {"redis://:p4ssw0rd-x@10.0.0.1:6379", "key.url-password"},
        {"redis://app:Tr0ub@4dor@db.internal/app", "key.url-password"},
        {"redis://app:Tr0ub/4dor@db.internal/app", "key.url-password"},
        {"redis://app:admin12345@db.internal/app", "key.url-password"},
        {R"({"log":"x\nsk-ant-api03-AbCdEf0123456789AbCdEf0123456789"})", "key.anthropic"},
        {R"(x\r\nghp_0123456789abcdefghijABCDEFGHIJ012345)", "key.github"},
        {R"(\u000aghp_0123456789abcdefghijABCDEFGHIJ012345)", "key.github"},
        {R"(x\nAPI_TOKEN=f3Kd92mZx81LqPw0aRt5)", "key.assignment"},
        {"x_sk-ant-api03-AbCdEf0123456789AbCdEf0123456789", "key.anthropic"},
        {"sk-ant-api03-AbCdEf\xe2\x80\x8b"
         "0123456789AbCdEf0123456789",
         "key.anthropic"},
        {"sk\xe2\x80\x8b-ant-api03-AbCdEf0123456789AbCdEf0123456789", "key.anthropic"},
        {R"(x\n-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----)", "key.pem"},
        {"x-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----", "key.pem"},
        {"API_TOKEN=f3Kd92mZx81LqPw0aRt5", "key.assignment"},
        {"aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYz0123", "key.assignment"},
        {"\"apiKey\": \"f3Kd92mZx81LqPw0aRt5\"", "key.assignment"},
        {"AccountKey=f3Kd92mZx81LqPw0aRt5f3Kd92mZx81LqPw0aRt5==", "key.assignment"},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.text);
      const ReplyAnswer answer = Guard().Check(std::string("here: ") + row.text + " .", kAll);
      CHECK(answer.verdict == ReplyVerdict::kRedact);
      CHECK(Kinds(answer) == row.kind);
      CHECK(answer.rule == "reply.keys");
    }
  }

  TEST_CASE("paths of the host and listings do not go to those who may not see them") {
    const struct {
      const char* text;
      const char* kind;
    } kRows[] = {
        {"It is in /home/alex/Projects/secret-plan.md.", "path.host"},
        {"see /Users/alex/Desktop", "path.host"},
        {"(/root/.bashrc)", "path.host"},
        {"file:///home/alex/x", "path.host"},
        {"C:\\Users\\alex\\Documents\\x.txt", "path.host"},
        {"under /srv/creel/state there is", "path.host"},
        {"total 4\n-rw-r--r-- 1 a a 10 Jan  1 10:00 a.txt\n", "listing"},
        {"drwxr-xr-x 2 a a 4096 Jan  1 10:00 b\n-rw-r--r-- 1 a a 10 Jan  1 10:00 a.txt", "listing"},
        {"./a\n./a/b\n./a/c\n./d\n", "listing"},
        {"~/a\n~/b\n~/c\n~/d", "listing"},
        {"/srv/x\n/srv/y\n/opt/z\n/opt/q\n", "listing"},
        {"~\n├── a\n├── b\n└── c\n", "listing"},
        {".\n├── a\n├── b\n└── c\n\n2 directories, 1 file\n", "listing"},
        {"Desktop\nDocuments\nDownloads\nnotes\n", "listing"},
        {"Desktop  Documents  Downloads  Music  notes.txt\n", "listing"},
        {"- .ssh/\n- .bashrc\n- Desktop/\n", "listing"},
        {"* `Desktop`\n* `Documents`\n* `Pictures`\n", "listing"},
        {"1. Desktop\n2. Documents\n3. Music\n", "listing"},
        {"1) Desktop\n2) Documents\n3) Music\n", "listing"},
        {"- **Desktop**\n- **Documents**\n- **Music**\n", "listing"},
        {"- Documents/ (tax papers)\n- Desktop/ (empty)\n- Music - songs\n", "listing"},
        {"> drwxr-xr-x 2 a a 4096 Jan  1 10:00 b\n> -rw-r--r-- 1 a a 10 Jan  1 10:00 a.txt",
         "listing"},
        {"[\"Desktop\", \"Documents\", \"notes.txt\", \"Music\"]", "listing"},
        {"[\n  \"Desktop\",\n  \"Documents\",\n  \"Music\"\n]\n", "listing"},
        {"{\"entries\":[\"Desktop\",\"Documents\",\"Music\"]}", "listing"},
        {"Your home folder contains: Desktop, Documents, taxes.ods and Downloads.", "listing"},
        {"4096 ./a\n120 ./a/b.txt\n7 ./c\n99 ./d\n", "listing"},
        {"4.0K\t./a\n12K\t./b\n1.5M\t./c\n8K\t./d\n2G\t.\n", "listing"},
        {"2026-01-02 10:00:00.123 12 ./a\n2026-01-02 10:00:01.5 7 ./b\n"
         "2026-01-03 09:00:00 1 ./c\n2026-01-03 09:00:00 1 ./d\n",
         "listing"},
        {"drwxr-xr-x 4096 ./a\n-rw-r--r-- 1 ./b\n-rw-r--r-- 2 ./c\n-rw-r--r-- 3 ./d\n", "listing"},
        {"4 Desktop\n4 Documents\n8 notes.txt\n4.0K\tMusic\n4 Pictures\n4 Videos\n", "listing"},
        {"~\n|-- a\n|   |-- b\n|   `-- c\n`-- d\n", "listing"},
        {".\n|-- a\n|-- b\n`-- c\n\n2 directories, 1 file\n", "listing"},
        {"/data\n+---a\n|   +---b\n|   \\---c\n\\---d\n", "listing"},
        {"\uf115 src\n\uf15b notes.txt\n\ue606 x.py\n", "listing"},
        {"\U000f0256 src\n\U000f0219 notes.txt\n\U000f0320 x.py\n", "listing"},
        {"\uf108 Desktop  \uf115 Documents  \uf498 Downloads  \uf15b x.txt\n", "listing"},
        {"📁 Desktop\n📁 Documents\n🎵 Music\n", "listing"},
        {"drwxr-xr-x  - alex  1 Jan 10:00 b\n.rw-r--r-- 12k alex  1 Jan 10:00 a.txt\n", "listing"},
        {"D:\\data\\a.txt\nD:\\data\\b c.txt\nD:\\data\\d.txt\nD:\\e\n", "listing"},
        {"01/02/2026  10:00 AM             1,234 a.txt\n01/02/2026  11:30 PM            12 b.txt\n",
         "listing"},
        {"02.01.2026  10:00             1.234 a.txt\n02.01.2026  23:30            12 b.txt\n",
         "listing"},
        {"Mode                 LastWriteTime         Length Name\n"
         "----                 -------------         ------ ----\n"
         "d-----         1/2/2026  10:00 AM                src\n"
         "-a----         1/2/2026  10:00 AM           1234 a.txt\n",
         "listing"},
        {"d-r--          02.01.2026    10:00                src\n"
         "-a---          02.01.2026    10:00           1234 a.txt\n",
         "listing"},
        {".cache, .config, .npm, notes.txt\n", "listing"},
        {".aws, .gitconfig, .netrc, Music, x\n", "listing"},
        {"[\"./a\", \"./b/c.txt\", \"./d\", \"./e\"]", "listing"},
        {"{\"files\":[\"/srv/a\",\"/srv/b\",\"/opt/c\",\"/etc/d\"]}", "listing"},
        {"[\n  \"./a\",\n  \"./b\",\n  \"./c\",\n  \"./d\"\n]\n", "listing"},
        {"* ./a\n* ./b/c\n* ~/d\n* /srv/e\n", "listing"},
        {"- `./a`\n- `./b/c`\n- ~/d\n- /srv/e\n", "listing"},
        {"Files: [\n  \"/srv/a\",\n  \"/srv/b\",\n  \"~/c\",\n  \"/opt/d\"\n]\n", "listing"},
        {"| Name | Kind |\n| --- | --- |\n| Desktop | folder |\n| `Documents/` | folder |\n"
         "| .ssh | folder |\n",
         "listing"},
        {"+ Desktop\n+ Documents\n+ Music\n", "listing"},
        {"→ Desktop\n→ Documents\n→ Music\n", "listing"},
        {"01/02/2026  10:00    <DIR>          a\n01/02/2026  10:00    <DIR>          b\n",
         "listing"},
    };
    for (const auto& row : kRows) {
      const std::string text = row.text;
      CAPTURE(text);
      const ReplyAnswer answer = Guard().Check(text, kAll);
      CHECK(answer.verdict == ReplyVerdict::kRedact);
      CHECK(Kinds(answer) == row.kind);
    }
  }

  TEST_CASE("ordinary chat, code and diffs pass unchanged") {
    const char* const kTexts[] = {
        "Sure! Dinner at eight, and I'll bring the documents.",
        "Your order 4711-0815 has shipped; the tracking number is 1Z999AA10123456784.",
        "Call me at +1 (555) 555-0123, or write to someone@example.org.",
        "See https://example.org/docs/guide?page=2#top and http://localhost:8080/a/b.",
        "The file is /workspace/src/main.cc; I wrote the result to /tmp/out.txt.",
        "Run `ls -la` in your Documents folder and tell me what you see.",
        "On Linux, user accounts are in /etc/passwd and programs in /usr/bin.",
        "#!/usr/bin/env python3\nimport os\nprint(os.environ['API_KEY'])\n",
        "const token = getTokenFromRequest(req);\nconst apiKey = process.env.API_KEY;\n",
        "password = \"${DB_PASSWORD}\"\nsecret: {{ vault.secret }}\n",
        "postgres://user:password@localhost:5432/db",
        "git commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "uuid 123e4567-e89b-12d3-a456-426614174000, sk-learn-compatible-estimators-are-nice",
        "diff --git a/src/a.cc b/src/a.cc\nindex 83db48f..bf269f4 100644\n--- a/src/a.cc\n+++ "
        "b/src/a.cc\n@@ -1,3 +1,3 @@\n-int a = 1;\n+int a = 2;\n",
        " src/a.cc  | 2 +-\n src/b.cc  | 14 ++++++++------\n 2 files changed, 9 insertions(+)\n",
        "project\n├── src\n│   └── main.cc\n├── tests\n└── README.md\n",
        "1. Open Settings\n2. Documents\n3. Press Save\n",
        "Now drag it from Downloads to Documents, Pictures or Music, whichever you like.",
        "Open http://localhost:8080/@vite/client and git+ssh://git@example.org:x/y@v1 please.",
        "It is at 12:34:56 on 2026-12-01, see https://example.org:443/@someone?x=1#y.",
        "task-list_item-number-one-2026-12-01, a long_snake_case_name_with_2_digits_42",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n",
        "| a | b |\n| --- | --- |\n| total 3 | -rw |\n",
        "for (const auto& [key, value] : map) { out += key + \": \" + value; }\n",
        "The total 12 items cost 40 euros. // see ./run.sh\n./run.sh --fast\n",
        "Schöne Grüße aus München, 東京からこんにちは, привет из Москвы "
        "🦞",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
        "100% sure, %20 is a space, and 5%2 is not.",
        "secret santa: who has whom? The token of my appreciation is a tokenizer.",
        "short",
        "GET:\n200 /index.html\n404 /favicon.ico\n200 /a.css\n200 /b.js\n",
        "- `/users`\n- `/login`\n- `/users/{id}`\n- `/logout`\n- /health\n",
        "[\"/users\", \"/login\", \"/health\", \"/logout\", \"/docs\"]",
        "project\n|-- src\n|   `-- main.cc\n|-- tests\n`-- README.md\n",
        "| a | b |\n|---|---|\n| -- | -- |\n|-- |-- |\n| 1 | 2 |\n",
        "+---+---+\n| a | b |\n+---+---+\n| 1 | 2 |\n+---+---+\n",
        "01/02/2026  10:00  Alex: hello\n01/02/2026  10:01  Sam: hi\n01/02/2026 10:02 12 eggs\n",
        "2026-01-02 10:00 meet at the station\n2026-01-02 12:00 lunch\n12:30 - 13:00 walk\n",
        "1. flour\n2. sugar\n300 g of butter\n4 eggs\n1.5 l of milk\n",
        "d) none of these\n--abbrev\n-all\n-l 1/2\nds\n",
        "resources:\n- ./a.yaml\n- ./b.yaml\n- ./c.yaml\n- ./d.yaml\n",
        "volumes:\n- /srv/a:/a\n- /srv/b:/b\n- /srv/c:/c\n- ./d:/d\n",
        "\"files\": [\n  \"./a.ts\",\n  \"./b.ts\",\n  \"./c.ts\",\n  \"./d.ts\"\n]\n",
        "\"./a\": \"./dist/a.js\",\n\"./b\": \"./dist/b.js\",\n\"./c\": \"./dist/c.js\",\n"
        "\"./d\": \"./dist/d.js\",\n",
        "{\"/srv/\", \"/opt/\", \"/usr/\", \"/var/\", \"/mnt/\",\n \"/media/\"}",
        "const char* kTops[] = {\n  \"/srv/\",\n  \"/opt/\",\n  \"/usr/\",\n  \"/var/\",\n};\n",
        "--- a/.gitignore\n+++ b/.gitignore\n@@ -1,0 +1,4 @@\n+.cache\n+.config\n+.npm\n+.local\n",
        "C:\\ is the drive; D:\\ is another.\nD:\\x\n",
        "app.config, server.profile and data.cache are read at the start.",
        "✅ done\n✅ tested\n❌ shipped\n→ next\n",
    };
    for (const char* text : kTexts) {
      CAPTURE(text);
      const ReplyAnswer answer = Guard().Check(text, kAll);
      const std::string kinds = Kinds(answer);
      CAPTURE(kinds);
      CHECK(answer.verdict == ReplyVerdict::kAllow);
      CHECK(answer.text == text);
    }
  }

  TEST_CASE("what is allowed to a level is not masked for it") {
    const std::string path = "see /home/alex/x";
    ReplyRules rules;
    rules.mask_paths = false;
    CHECK(Guard().Check(path, rules).text == path);
    rules.mask_keys = false;
    const std::string key = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
    CHECK(Guard().Check(key, rules).text == key);
  }

  TEST_CASE("hostile text takes time in proportion to its length") {
    // Each is made of what the finders look for, and leads none of them to an end.
    const auto repeated = [](const std::string& piece, size_t bytes) {
      std::string text;
      while (text.size() < bytes) {
        text += piece;
      }
      return text;
    };
    const std::string pieces[] = {
        "-----BEGIN RSA PRIVATE KEY ",
        "-----BEGIN PRIVATE KEY-----",
        "eyJhbGciOiJIUzI1NiJ9.",
        "://a:",
        "://",
        "123456789:",
        "API_TOKEN=",
        "SECRET_KEY = \"",
        "%73%33",
        "s3cr3t/Pass+word=004",
        "drwxr-xr-x \n",
        "/home/",
        "./\n",
        "\xe2\x80\x8b",
        "a",
        "sk-",
        "_sk-",
        "-",
        "\\nsk-",
        "x-----BEGIN",
        "://a:b/@",
        "73:33:",
        "Desktop, ",
        "MTIzNDU2Nzg5MDEyMzQ1Njc4.GAbCdE.",
        "\xe2\x94\x9c\xe2\x94\x80",
        "| ",
        "\xef\x80\x80",
        "4096 ",
        "\"./a\",",
        ".con",
        "[\"",
        "d-----  1/2/2026 ",
        "|-- \n",
    };
    for (const std::string& piece : pieces) {
      CAPTURE(piece);
      const auto time = [&](size_t bytes) {
        const std::string text = repeated(piece, bytes);
        auto best = std::chrono::nanoseconds::max();
        for (int i = 0; i < 3; ++i) {
          const auto began = ThreadTime();
          const ReplyAnswer answer = Guard().Check(text, kAll);
          best = std::min(best, ThreadTime() - began);
          CHECK(answer.verdict != ReplyVerdict::kDeny);
        }
        return best;
      };
      const auto small = time(64u << 10);
      const auto large = time(1u << 20);
      // Sixteen times the text; a quadratic walk would take 256 times as long.
      CHECK(large < small * 100 + std::chrono::milliseconds(20));
      CHECK(large < std::chrono::seconds(2));
    }
  }
}

}  // namespace
}  // namespace creel
