#include "supervisor/cli/reference.h"

#include <cstdio>
#include <functional>
#include <string_view>
#include <vector>

namespace creel::cli {
namespace {

std::vector<const CLI::App*> Children(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* child) { return !child->get_name().empty(); });
}

// Without those that are hidden, which have no group.
std::vector<const CLI::Option*> Options(const CLI::App& app, bool positional) {
  return app.get_options([positional](const CLI::Option* option) {
    return option->get_positional() == positional && !option->get_group().empty();
  });
}

// Those of a command, and those of the program, which fall through to every command.
std::vector<const CLI::Option*> Usable(const CLI::App& app, const CLI::App& root) {
  std::vector<const CLI::Option*> usable = Options(app, false);
  for (const CLI::Option* option : Options(root, false)) {
    if (&app != &root && option != root.get_help_ptr()) {
      usable.push_back(option);
    }
  }
  return usable;
}

bool TakesValue(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

// "-e", "--env"
std::vector<std::string> Flags(const CLI::Option& option) {
  std::vector<std::string> flags;
  for (const std::string& name : option.get_snames()) {
    flags.push_back("-" + name);
  }
  for (const std::string& name : option.get_lnames()) {
    flags.push_back("--" + name);
  }
  return flags;
}

// Calls `visit` for the app and all below it, each with its words: "creel incident open".
void Walk(const CLI::App& app, const std::string& words,
          const std::function<void(const CLI::App&, const std::string&)>& visit) {
  visit(app, words);
  for (const CLI::App* child : Children(app)) {
    Walk(*child, words + " " + child->get_name(), visit);
  }
}

// Text as troff prints it unchanged.
std::string Troff(std::string_view text) {
  std::string out;
  bool line_start = true;
  for (const char c : text) {
    if (line_start && (c == '.' || c == '\'')) {
      out += "\\&";
    }
    line_start = c == '\n';
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

std::string Bold(const std::string& text) { return "\\fB" + Troff(text) + "\\fR"; }
std::string Italic(const std::string& text) { return "\\fI" + Troff(text) + "\\fR"; }

// What an option's value is called.
std::string ValueName(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  return type.empty() ? "VALUE" : type.substr(0, type.find(' '));
}

std::string Synopsis(const CLI::App& app, const std::string& words) {
  std::string line = Bold(words);
  if (!Options(app, false).empty()) {
    line += " [" + Italic("OPTIONS") + "]";
  }
  for (const CLI::Option* option : Options(app, true)) {
    const std::string name = Italic(option->get_name(true));
    const std::string dots = option->get_items_expected_max() > 1 ? " ..." : "";
    line += option->get_required() ? " " + name + dots : " [" + name + dots + "]";
  }
  if (!Children(app).empty()) {
    line += " " + Italic("COMMAND");
  }
  return line + "\n";
}

std::string OptionParagraphs(const CLI::App& app) {
  std::string out;
  for (const CLI::Option* option : Options(app, true)) {
    out +=
        ".TP\n" + Italic(option->get_name(true)) + "\n" + Troff(option->get_description()) + "\n";
  }
  for (const CLI::Option* option : Options(app, false)) {
    if (app.get_parent() != nullptr && option == app.get_help_ptr()) {
      continue;  // told once, for the program
    }
    out += ".TP\n";
    std::string comma;
    for (const std::string& flag : Flags(*option)) {
      out += comma + Bold(flag);
      comma = ", ";
    }
    if (TakesValue(*option)) {
      out += " " + Italic(ValueName(*option));
    }
    out += "\n" + Troff(option->get_description());
    if (!option->get_default_str().empty()) {
      out += " (default: " + Troff(option->get_default_str()) + ")";
    }
    out += "\n";
  }
  return out;
}

std::string Upper(std::string text) {
  for (char& c : text) {
    if (c >= 'a' && c <= 'z') {
      c = static_cast<char>(c - 'a' + 'A');
    }
  }
  return text;
}

// In single quotes of a POSIX shell.
std::string ShellQuoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  }
  return out + "'";
}

// In single quotes of fish, whose escape is another.
std::string FishQuoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') {
      out += '\\';
    }
    out += c;
  }
  return out + "'";
}

// What may follow in a command: its commands, its own flags, and those of all above it, which fall
// through.
std::string BashWords(const CLI::App& app, const CLI::App& root) {
  std::string words;
  for (const CLI::App* child : Children(app)) {
    words += child->get_name() + " ";
  }
  for (const CLI::Option* option : Usable(app, root)) {
    for (const std::string& flag : Flags(*option)) {
      words += flag + " ";
    }
  }
  if (!words.empty()) {
    words.pop_back();
  }
  return words;
}

// The flags that are followed by a value, as a pattern of `case`.
std::string ValueFlags(const CLI::App& root) {
  std::string pattern;
  Walk(root, "", [&](const CLI::App& app, const std::string&) {
    for (const CLI::Option* option : Options(app, false)) {
      for (const std::string& flag :
           TakesValue(*option) ? Flags(*option) : std::vector<std::string>()) {
        if (("|" + pattern + "|").find("|" + flag + "|") == std::string::npos) {
          pattern += (pattern.empty() ? "" : "|") + flag;
        }
      }
    }
  });
  return pattern.empty() ? "--" : pattern;
}

// The paths of all commands, as a pattern of `case`: what is a word of the path and what is not.
std::string Paths(const CLI::App& root, const std::string& name) {
  std::string pattern;
  Walk(root, name, [&](const CLI::App&, const std::string& words) {
    pattern += (pattern.empty() ? "" : "|") + ShellQuoted(words);
  });
  return pattern;
}

// Shell code, good for bash and zsh, that sets `path` to the command that the words before `$last`
// name. `words` counts from `first`.
std::string FindPath(const CLI::App& root, const std::string& name, int first) {
  return "  local path=" + name + " i=" + std::to_string(first + 1) +
         "\n"
         "  while [ \"$i\" -lt \"$last\" ]; do\n"
         "    case \"${words[$i]}\" in\n"
         "      --) return 0 ;;\n"
         "      " +
         ValueFlags(root) +
         ") i=$((i + 1)) ;;\n"
         "      *)\n"
         "        case \"$path ${words[$i]}\" in\n"
         "          " +
         Paths(root, name) +
         ") path=\"$path ${words[$i]}\" ;;\n"
         "        esac ;;\n"
         "    esac\n"
         "    i=$((i + 1))\n"
         "  done\n";
}

std::string FunctionName(const std::string& name) {
  std::string out = "_" + name;
  for (char& c : out) {
    c = c == '-' ? '_' : c;
  }
  return out;
}

}  // namespace

std::string ManualPage(const CLI::App& app, const std::string& name, const ManualText& text) {
  std::string out = ".TH " + Upper(name) + " " + std::to_string(text.section) + " \"\" \"Creel " +
                    CREEL_VERSION + "\" \"Creel\"\n";
  out += ".SH NAME\n" + Troff(name) + " \\- " + Troff(app.get_description()) + "\n";
  out += ".SH SYNOPSIS\n" + Synopsis(app, name);
  out += ".SH OPTIONS\n" + OptionParagraphs(app);
  if (!Children(app).empty()) {
    out += ".SH COMMANDS\n";
    Walk(app, name, [&](const CLI::App& each, const std::string& words) {
      if (&each == &app) {
        return;
      }
      // Groups have nothing to say but what their commands say.
      out += ".SS " + Troff(words.substr(name.size() + 1)) + "\n" + Troff(each.get_description()) +
             ".\n";
      if (Children(each).empty()) {
        out += ".PP\n" + Synopsis(each, words) + OptionParagraphs(each);
      }
      if (!each.get_footer().empty()) {
        out += ".PP\n" + Troff(each.get_footer()) + "\n";
      }
    });
  }
  return out + text.more;
}

std::string BashCompletion(const CLI::App& app, const std::string& name) {
  const std::string function = FunctionName(name);
  std::string out = "# bash completion for " + name + "; made from its --help\n" + function +
                    "() {\n"
                    "  local -a words=(\"${COMP_WORDS[@]}\")\n"
                    "  local last=$COMP_CWORD current=${COMP_WORDS[COMP_CWORD]}\n"
                    "  COMPREPLY=()\n";
  out += FindPath(app, name, 0);
  out += "  local choices=\n  case \"$path\" in\n";
  Walk(app, name, [&](const CLI::App& each, const std::string& words) {
    out += "    " + ShellQuoted(words) + ") choices=" + ShellQuoted(BashWords(each, app)) + " ;;\n";
  });
  out +=
      "  esac\n"
      "  mapfile -t COMPREPLY < <(compgen -W \"$choices\" -- \"$current\")\n"
      "}\n"
      "complete -o default -F " +
      function + " " + name + "\n";
  return out;
}

std::string ZshCompletion(const CLI::App& app, const std::string& name) {
  std::string out = "#compdef " + name + "\n# made from its --help\n" + FunctionName(name) +
                    "() {\n"
                    "  local last=$CURRENT\n"
                    "  local -a commands flags\n";
  // `path` is tied to PATH in zsh, and a local of that name with it.
  std::string find = FindPath(app, name, 1);
  for (size_t at = 0; (at = find.find("path", at)) != std::string::npos; at += 5) {
    find.replace(at, 4, "where");
  }
  out += find + "  case \"$where\" in\n";
  const auto described = [](const std::string& word, const std::string& text) {
    std::string plain;
    for (const char c : word) {
      plain += c == ':' ? std::string("\\:") : std::string(1, c);
    }
    return ShellQuoted(plain + ":" + text);
  };
  Walk(app, name, [&](const CLI::App& each, const std::string& words) {
    out += "    " + ShellQuoted(words) + ")\n      commands=(";
    for (const CLI::App* child : Children(each)) {
      out += "\n        " + described(child->get_name(), child->get_description());
    }
    out += ")\n      flags=(";
    for (const CLI::Option* option : Usable(each, app)) {
      for (const std::string& flag : Flags(*option)) {
        out += "\n        " + described(flag, option->get_description());
      }
    }
    out += ") ;;\n";
  });
  out +=
      "  esac\n"
      "  if [[ \"${words[$CURRENT]}\" == -* ]]; then\n"
      "    _describe -o option flags\n"
      "  elif (( ${#commands} )); then\n"
      "    _describe command commands\n"
      "  else\n"
      "    _files\n"
      "  fi\n"
      "}\n" +
      FunctionName(name) + " \"$@\"\n";
  return out;
}

std::string FishCompletion(const CLI::App& app, const std::string& name) {
  const std::string where = "_" + FunctionName(name) + "_is_at";
  std::string value_flags = ValueFlags(app);
  for (char& c : value_flags) {
    c = c == '|' ? ' ' : c;
  }
  std::string out = "# fish completion for " + name + "; made from its --help\n";
  std::string paths;
  Walk(app, name,
       [&](const CLI::App&, const std::string& words) { paths += " " + FishQuoted(words); });
  out += "function " + where +
         "\n"
         "  set -l path " +
         name +
         "\n"
         "  set -l skip 0\n"
         "  for word in (commandline -opc)[2..-1]\n"
         "    if test $skip = 1\n"
         "      set skip 0\n"
         "    else if test \"$word\" = --\n"
         "      return 1\n"
         "    else if contains -- $word " +
         value_flags +
         "\n"
         "      set skip 1\n"
         "    else if contains -- \"$path $word\"" +
         paths +
         "\n"
         "      set path \"$path $word\"\n"
         "    end\n"
         "  end\n"
         "  test \"$path\" = \"$argv[1]\"\n"
         "end\n";
  Walk(app, name, [&](const CLI::App& each, const std::string& words) {
    const std::string begin =
        "complete -c " + name + " -n " + FishQuoted(where + " " + FishQuoted(words));
    for (const CLI::App* child : Children(each)) {
      out += begin + " -f -a " + FishQuoted(child->get_name()) + " -d " +
             FishQuoted(child->get_description()) + "\n";
    }
    for (const CLI::Option* option : Usable(each, app)) {
      out += begin;
      for (const std::string& short_name : option->get_snames()) {
        out += " -s " + short_name;
      }
      for (const std::string& long_name : option->get_lnames()) {
        out += " -l " + long_name;
      }
      out +=
          (TakesValue(*option) ? " -r -d " : " -d ") + FishQuoted(option->get_description()) + "\n";
    }
  });
  return out;
}

std::optional<int> PrintReference(const CLI::App& app, const ManualText& text, int argc,
                                  char** argv) {
  constexpr std::string_view kAsked = "--reference=";
  const std::string_view argument = argc == 2 ? argv[1] : "";
  if (argument.rfind(kAsked, 0) != 0) {
    return std::nullopt;
  }
  const std::string_view kind = argument.substr(kAsked.size());
  const std::string_view path = argv[0];
  const std::string name(path.substr(path.rfind('/') + 1));
  std::string out;
  if (kind == "man") {
    out = ManualPage(app, name, text);
  } else if (kind == "bash") {
    out = BashCompletion(app, name);
  } else if (kind == "zsh") {
    out = ZshCompletion(app, name);
  } else if (kind == "fish") {
    out = FishCompletion(app, name);
  } else {
    return std::nullopt;
  }
  return std::fwrite(out.data(), 1, out.size(), stdout) == out.size() && std::fflush(stdout) == 0
             ? 0
             : 1;
}

}  // namespace creel::cli
