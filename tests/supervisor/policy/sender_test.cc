#include "supervisor/policy/sender.h"

#include <doctest/doctest.h>

#include <string>

namespace creel {
namespace {

TEST_SUITE("Sender") {
  TEST_CASE("every spelling of one sender is one sender") {
    const struct {
      const char* given;
      const char* one;
    } kRows[] = {
        {"whatsapp:+15555550123", "whatsapp:+15555550123"},
        {"whatsapp:+1 (555) 555-0123", "whatsapp:+15555550123"},
        {"whatsapp:0015555550123", "whatsapp:+15555550123"},
        {"whatsapp:15555550123", "whatsapp:+15555550123"},
        {"whatsapp:15555550123@s.whatsapp.net", "whatsapp:+15555550123"},
        {"whatsapp:15555550123:7@s.whatsapp.net", "whatsapp:+15555550123"},
        {"whatsapp:15555550123.0:7@S.WhatsApp.net", "whatsapp:+15555550123"},
        {"WhatsApp: +1.555.555.0123 ", "whatsapp:+15555550123"},
        {"wa:+15555550123", "whatsapp:+15555550123"},
        {"+15555550123", "whatsapp:+15555550123"},
        {"+1 (555) 555-0123", "whatsapp:+15555550123"},
        {"whatsapp:whatsapp:+15555550123", "whatsapp:+15555550123"},
        {"whatsapp:123456@lid", "whatsapp:123456@lid"},
        {"whatsapp:7777777777:3@lid", "whatsapp:7777777777@lid"},
        {"whatsapp:7777777777.1:3@LID", "whatsapp:7777777777@lid"},
        {"whatsapp:7777777777:3@hosted.lid", "whatsapp:7777777777@lid"},
        {"whatsapp:15555550123@hosted", "whatsapp:+15555550123"},
        {"whatsapp:15555550123:99@hosted", "whatsapp:+15555550123"},
        {"whatsapp:tel:+15555550123", "whatsapp:+15555550123"},
        {"tel:+15555550123", "whatsapp:+15555550123"},
        {"signal:+49 151 2345678", "signal:+491512345678"},
        {"sms:+49 151 2345678", "sms:+491512345678"},
        {"imessage:Some.One@Example.org", "imessage:some.one@example.org"},
        {"imessage:+49 151 2345678", "imessage:+491512345678"},
        {"tg:@SomeBody", "telegram:somebody"},
        {"telegram:123456789", "telegram:123456789"},
        {"discord:123456789012345678", "discord:123456789012345678"},
        {"slack:U012ABCDEF", "slack:U012ABCDEF"},
        {"matrix:@a:example.org", "matrix:@a:example.org"},
        {"nochannel", "unknown:nochannel"},
        {":odd", "unknown::odd"},
        {"whatsapp:", ""},
        {"  ", ""},
        {"", ""},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.given);
      CHECK(ParseSender(row.given).text() == row.one);
    }
  }

  TEST_CASE("senders that are near each other stay apart") {
    CHECK(ParseSender("whatsapp:+15555550123") != ParseSender("sms:+15555550123"));
    CHECK(ParseSender("whatsapp:+15555550123") != ParseSender("whatsapp:+15555550124"));
    CHECK(ParseSender("slack:U012abcdef") != ParseSender("slack:U012ABCDEF"));
    CHECK(ParseSender("whatsapp:+1555555012a") != ParseSender("whatsapp:+15555550123"));
    CHECK(ParseSender("telegram:15555550123") != ParseSender("whatsapp:15555550123"));
  }

  TEST_CASE("a list about one channel may leave the channel out") {
    CHECK(ParseSenderOf("telegram", "@SomeBody").text() == "telegram:somebody");
    CHECK(ParseSenderOf("telegram", "tg:somebody").text() == "telegram:somebody");
    CHECK(ParseSenderOf("whatsapp", "+1 555 555 0123").text() == "whatsapp:+15555550123");
  }

  TEST_CASE("a group has one spelling") {
    CHECK(NormalGroup(" 1203630@g.us ") == "1203630");
    CHECK(NormalGroup("1203630") == "1203630");
    CHECK(NormalGroup("-100123") == "-100123");
  }
}

}  // namespace
}  // namespace creel
