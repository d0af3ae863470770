#include "supervisor/egress/masker.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <ctime>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace creel::egress {
namespace {

// What comes out if the text comes in pieces of this size.
std::string InPieces(const std::vector<std::string>& secrets, const std::string& text,
                     size_t piece) {
  Masker masker(secrets);
  std::string out;
  for (size_t at = 0; at < text.size(); at += piece) {
    masker.Feed(text.substr(at, piece), out);
  }
  masker.Finish(out);
  return out;
}

// The same by the plainest of means.
std::string Plainly(const std::vector<std::string>& secrets, const std::string& text) {
  std::string out = text;
  for (const std::string& secret : secrets) {
    for (size_t at = text.find(secret); at != std::string::npos && secret.size() >= 4;
         at = text.find(secret, at + 1)) {
      std::fill_n(out.begin() + static_cast<std::ptrdiff_t>(at), secret.size(), '*');
    }
  }
  return out;
}

double CpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

TEST_SUITE("Masker") {
  TEST_CASE("a secret is masked wherever it is cut") {
    const std::string text = "key=s3cr3t-value; again s3cr3t-values3cr3t-value. s3cr3t-valu end";
    const std::string expected =
        "key=************; again ************************. s3cr3t-valu end";
    for (size_t piece = 1; piece <= text.size(); ++piece) {
      CAPTURE(piece);
      CHECK(InPieces({"s3cr3t-value"}, text, piece) == expected);
    }
  }

  TEST_CASE("secrets that overlap, or begin alike, are covered whole") {
    const std::vector<std::string> secrets{"abcdef", "defghi", "abcdefgh", "aaaa"};
    const struct {
      const char* text;
      const char* expected;
    } kRows[] = {
        {"xabcdefx", "x******x"}, {"xabcdefghx", "x********x"}, {"abcdefghi", "*********"},
        {"aaaaaa", "******"},     {"aaabcdef", "aa******"},     {"abcdegabcdef", "abcdeg******"},
    };
    for (const auto& row : kRows) {
      for (size_t piece = 1; piece < 14; ++piece) {
        CAPTURE(row.text);
        CAPTURE(piece);
        CHECK(InPieces(secrets, row.text, piece) == row.expected);
      }
    }
  }

  TEST_CASE("whatever the secrets and the pieces, each occurrence is covered, and nothing else") {
    std::mt19937 random(7);
    const auto text_of = [&random](size_t most, const std::string& letters) {
      std::string text(random() % most, ' ');
      std::generate(text.begin(), text.end(), [&] { return letters[random() % letters.size()]; });
      return text;
    };
    for (int i = 0; i < 3000; ++i) {
      const std::string letters = i % 2 == 0 ? "ab" : "abc*";
      std::vector<std::string> secrets(random() % 5);
      std::generate(secrets.begin(), secrets.end(), [&] { return text_of(10, letters); });
      const std::string text = text_of(60, letters);
      CAPTURE(secrets);
      CAPTURE(text);
      CHECK(InPieces(secrets, text, 1 + random() % 9) == Plainly(secrets, text));
    }
  }

  TEST_CASE("looking takes no longer where a long secret begins at every byte of the text") {
    const std::string piece = std::string((64u << 10) - 1, 'k') + "Y";
    const auto took = [&piece](size_t length) {
      Masker masker({std::string(length, 'k') + "X"});
      size_t passed = 0;
      const double begin = CpuSeconds();
      for (int i = 0; i < 64; ++i) {
        std::string out;
        masker.Feed(piece, out);
        passed += out.size();
      }
      CHECK(passed == 64 * piece.size());
      return CpuSeconds() - begin;
    };
    CHECK(took(8000) < 4 * took(5));
  }

  TEST_CASE("only what may be the beginning of a secret is held back") {
    Masker masker({"secret"});
    std::string out;
    masker.Feed("data: one\n\n", out);
    CHECK(out == "data: one\n\n");
    masker.Feed("se", out);
    CHECK(out == "data: one\n\n");
    masker.Feed("cond", out);
    CHECK(out == "data: one\n\nsecond");
  }

  TEST_CASE("a short piece that is held can be let go, and the rest of a secret is still covered") {
    Masker masker({"secret"});
    std::string out;
    masker.Feed("a se", out);
    CHECK(masker.CanRelease());
    masker.Release(out);
    CHECK(out == "a se");
    CHECK_FALSE(masker.CanRelease());
    masker.Feed("c", out);
    CHECK(out == "a se");
    masker.Release(out);
    CHECK(out == "a sec");
    masker.Feed("re", out);
    CHECK_FALSE(masker.CanRelease());
    masker.Release(out);
    CHECK(out == "a sec");
    masker.Feed("t, se", out);
    CHECK(out == "a sec***, ");
    masker.Release(out);
    masker.Feed("ven se", out);
    CHECK(out == "a sec***, seven ");
    masker.Finish(out);
    CHECK(out == "a sec***, seven se");
  }

  TEST_CASE("what is covered already is not held back") {
    Masker masker({"secret-secret", "secret"});
    std::string out;
    masker.Feed("a secret", out);
    CHECK(out == "a ******");
    masker.Feed("-sec", out);
    CHECK(out == "a ******");
    masker.Feed("ret", out);
    CHECK(out == "a *************");
    masker.Feed("-x", out);
    CHECK(out == "a *************-x");
  }

  TEST_CASE("nothing to look for changes nothing, and short values are not looked for") {
    CHECK(InPieces({}, "text", 1) == "text");
    CHECK(InPieces({"a", "", "abc"}, "abcabc", 2) == "abcabc");
  }

  TEST_CASE("a value is covered in whatever form it is echoed") {
    const Masker masker(FormsOf("p/ss \"w\""));
    for (const std::string text :
         {"p/ss \"w\"", "p%2Fss%20%22w%22", "cC9zcyAidyI=", "p\\/ss \\\"w\\\""}) {
      CAPTURE(text);
      CHECK(masker.Masked("<" + text + ">") == "<" + std::string(text.size(), '*') + ">");
    }
  }
}

}  // namespace
}  // namespace creel::egress
