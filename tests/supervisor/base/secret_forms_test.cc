#include "supervisor/base/secret_forms.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "supervisor/base/crypto.h"

namespace creel {
namespace {

bool Has(const std::vector<std::string>& forms, const std::string& form) {
  return std::find(forms.begin(), forms.end(), form) != forms.end();
}

TEST_SUITE("SecretForms") {
  TEST_CASE("a secret comes in all the forms in which programs write it") {
    constexpr struct {
      const char* secret;
      const char* form;
    } kRows[] = {
        {"s3cr3t-value", "s3cr3t-value"},
        {"s3cr3t-value", "czNjcjN0LXZhbHVl"},
        {"s3cr3t-value", "7333637233742d76616c7565"},
        {"s3cr3t-value", "7333637233742D76616C7565"},
        {"p/ss \"w\"", "p%2Fss%20%22w%22"},
        {"p/ss \"w\"", "cC9zcyAidyI="},
        {"p/ss \"w\"", "p\\/ss \\\"w\\\""},
        {"\xff\xfe\xfd?>", "//79Pz4="},
        {"\xff\xfe\xfd?>", "__79Pz4="},
        {"a/b&c <d>'\"+e", "a/b%26c%20%3Cd%3E%27%22%2Be"},
        {"a/b&c <d>'\"+e", "a%2fb%26c%20%3cd%3e%27%22%2be"},
        {"a/b&c <d>'\"+e", "a/b%26c+%3Cd%3E%27%22%2Be"},
        {"a/b&c <d>'\"+e", "a/b\\u0026c \\u003cd\\u003e'\\\"+e"},
        {"a/b&c <d>'\"+e", "a\\/b\\u0026c \\u003Cd\\u003E\\u0027\\u0022\\u002Be"},
        {"a/b&c <d>'\"+e", "a/b&c <d>'\\\"+e"},
        {"a/b&c <d>'\"+e", "a/b&amp;c &lt;d&gt;&#39;&#34;+e"},
        {"a/b&c <d>'\"+e", "a/b&amp;c &lt;d&gt;&#x27;&quot;+e"},
        {"a/b&c <d>'\"+e", "a/b&amp;c &lt;d&gt;'\"+e"},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.secret);
      CAPTURE(row.form);
      CHECK(Has(FormsOf(row.secret), row.form));
    }
  }

  TEST_CASE("base64 is known wherever the secret stands in what is encoded") {
    for (const std::string secret : {"s3cr3t-value", "s3cr3t-values", "\xff?>\xfe~~\xfd more"}) {
      const std::vector<std::string> forms = FormsOf(secret);
      for (const std::string before : {"", "u", "u:", "us:", "user:"}) {
        for (const std::string after : {"", "!", "!!", "\n\n\n"}) {
          std::string coded = Base64(before + secret + after);
          for (const bool url : {false, true}) {
            if (url) {
              std::replace(coded.begin(), coded.end(), '+', '-');
              std::replace(coded.begin(), coded.end(), '/', '_');
            }
            CAPTURE(coded);
            CHECK(std::any_of(forms.begin(), forms.end(), [&](const std::string& form) {
              return form.size() >= secret.size() && coded.find(form) != std::string::npos;
            }));
          }
        }
      }
    }
  }

  TEST_CASE("each form comes once, and none is the shorter part of a word") {
    const std::vector<std::string> forms = FormsOf("hunter2hunter2");
    for (const std::string& form : forms) {
      CAPTURE(form);
      CHECK(std::count(forms.begin(), forms.end(), form) == 1);
      CHECK(form.size() >= 14);
    }
    // Plain letters are escaped by nobody: plain, base64 in five ways, and hexadecimal in two.
    CHECK(forms.size() <= 8);
  }
}

}  // namespace
}  // namespace creel
