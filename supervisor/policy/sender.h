#pragma once

#include <string>
#include <string_view>

namespace creel {

// Who wrote, in the one spelling by which senders are compared.
struct SenderId {
  std::string channel;  // lower case; empty: unknown
  std::string id;       // empty: unknown
  [[nodiscard]] bool known() const { return !id.empty(); }
  // `channel:id`; empty if unknown.
  [[nodiscard]] std::string text() const { return known() ? channel + ":" + id : std::string(); }
  bool operator==(const SenderId&) const = default;
};

// Brings a sender's id into its one spelling. Phone numbers are E.164 (`+1 (555) 555-0123` and
// `0015555550123` are `+15555550123`, and so are WhatsApp's `15555550123@s.whatsapp.net` and
// `15555550123:7@s.whatsapp.net`); user names and mail addresses lose their case. `channel` may be
// an alias such as `tg`.
SenderId NormalSender(std::string_view channel, std::string_view id);

// Splits `channel:id`. A telephone number without a channel is WhatsApp's. Other text without one
// has the channel `unknown`, which no configuration names by chance.
SenderId ParseSender(std::string_view text);

// The same for an entry of a list that is about one channel, where the channel may be left out.
SenderId ParseSenderOf(std::string_view channel, std::string_view text);

// `wa` is `whatsapp`, and so on; lower case.
std::string NormalChannel(std::string_view channel);

// A group's id as it is compared: trimmed, without WhatsApp's `@g.us`.
std::string NormalGroup(std::string_view id);

}  // namespace creel
