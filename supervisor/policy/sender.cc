#include "supervisor/policy/sender.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

namespace creel {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kAliases{{
    {"wa", "whatsapp"},
    {"tg", "telegram"},
    {"gowa", "whatsapp"},
    {"apple-messages", "imessage"},
    {"teams", "msteams"},
    {"phone", "sms"},
}};

constexpr std::array<std::string_view, 4> kPhoneChannels{"whatsapp", "signal", "sms", "imessage"};
constexpr size_t kLeastDigits = 5;
constexpr size_t kMostDigits = 15;

std::string_view Trimmed(std::string_view text) {
  const auto space = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && space(text.front())) {
    text.remove_prefix(1);
  }
  while (!text.empty() && space(text.back())) {
    text.remove_suffix(1);
  }
  return text;
}

// ASCII alone: what other alphabets make of it depends on a locale.
std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return lower;
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// `text` as E.164; empty if it is no telephone number.
std::string AsPhone(std::string_view text) {
  // As links have it.
  if (Lower(text.substr(0, 4)) == "tel:") {
    text.remove_prefix(4);
  }
  std::string digits;
  bool plus = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (IsDigit(c)) {
      digits += c;
    } else if (c == '+' && digits.empty() && !plus) {
      plus = true;
    } else if (c != ' ' && c != '-' && c != '(' && c != ')' && c != '.' && c != '/') {
      return {};
    }
  }
  if (!plus && digits.starts_with("00")) {
    digits.erase(0, 2);
  }
  if (digits.size() < kLeastDigits || digits.size() > kMostDigits) {
    return {};
  }
  return "+" + digits;
}

std::string NormalWhatsapp(std::string_view id) {
  // A number that hides behind `@lid` is no telephone number.
  for (const std::string_view server : {"@lid", "@hosted.lid"}) {
    if (Lower(id).ends_with(server)) {
      id.remove_suffix(server.size());
      return Lower(id.substr(0, id.find_first_of(":."))) + "@lid";
    }
  }
  for (const std::string_view server : {"@s.whatsapp.net", "@c.us", "@whatsapp.net", "@hosted"}) {
    if (Lower(id).ends_with(server)) {
      id.remove_suffix(server.size());
      // `number:device` and `number.agent:device`.
      id = id.substr(0, id.find(':'));
      id = id.substr(0, id.find('.'));
      break;
    }
  }
  const std::string phone = AsPhone(id);
  return phone.empty() ? Lower(id) : phone;
}

}  // namespace

std::string NormalChannel(std::string_view channel) {
  const std::string lower = Lower(Trimmed(channel));
  for (const auto& [alias, name] : kAliases) {
    if (lower == alias) {
      return std::string(name);
    }
  }
  return lower;
}

std::string NormalGroup(std::string_view id) {
  std::string_view group = Trimmed(id);
  if (group.ends_with("@g.us")) {
    group.remove_suffix(5);
  }
  return std::string(group);
}

SenderId NormalSender(std::string_view channel, std::string_view id) {
  SenderId sender{.channel = NormalChannel(channel), .id = {}};
  std::string_view rest = Trimmed(id);
  if (rest.empty()) {
    sender.channel.clear();
    return sender;
  }
  // `whatsapp:+1…` as the id on whatsapp.
  if (const size_t colon = rest.find(':');
      colon != std::string_view::npos && NormalChannel(rest.substr(0, colon)) == sender.channel) {
    rest = Trimmed(rest.substr(colon + 1));
  }
  if (sender.channel == "whatsapp") {
    sender.id = NormalWhatsapp(rest);
  } else if (std::find(kPhoneChannels.begin(), kPhoneChannels.end(), sender.channel) !=
             kPhoneChannels.end()) {
    const std::string phone = AsPhone(rest);
    sender.id = phone.empty() ? Lower(rest) : phone;
  } else if (sender.channel == "telegram" || sender.channel == "email") {
    if (sender.channel == "telegram" && rest.starts_with('@')) {
      rest.remove_prefix(1);
    }
    sender.id = Lower(rest);
  } else {
    sender.id = std::string(rest);
  }
  if (sender.id.empty()) {
    sender.channel.clear();
  }
  return sender;
}

SenderId ParseSender(std::string_view text) {
  const std::string_view trimmed = Trimmed(text);
  if (trimmed.empty()) {
    return {};
  }
  if (!AsPhone(trimmed).empty()) {
    return NormalSender("whatsapp", trimmed);
  }
  const size_t colon = trimmed.find(':');
  if (colon == std::string_view::npos || colon == 0) {
    return NormalSender("unknown", trimmed);
  }
  return NormalSender(trimmed.substr(0, colon), trimmed.substr(colon + 1));
}

SenderId ParseSenderOf(std::string_view channel, std::string_view text) {
  return NormalSender(channel, text);
}

}  // namespace creel
