#include "supervisor/policy/listing_finder.h"

#include <algorithm>
#include <array>
#include <unordered_set>

namespace creel {
namespace {

// What a line of the text is.
enum class LineKind {
  kText,
  kLong,   // of `ls -l` or `dir`
  kTotal,  // the line before
  kPath,   // a path and nothing else
  kTree,
  kHome,     // the name of something that lies in home folders
  kColumns,  // several of those
};

constexpr size_t kLeastLong = 2;
constexpr size_t kLeastPaths = 4;
constexpr size_t kLeastTree = 3;
constexpr size_t kLeastHome = 3;

const std::unordered_set<std::string_view>& HomeNames() {
  static const auto& names = *new std::unordered_set<std::string_view>{
      "Desktop", "Documents",     "Downloads", "Music",     "Pictures",     "Videos",
      "Public",  "Templates",     "Library",   "Movies",    "Applications", ".ssh",
      ".bashrc", ".profile",      ".config",   ".cache",    ".gnupg",       ".local",
      ".zshrc",  ".bash_history", ".openclaw", ".clawdbot", ".aws",         ".docker",
      ".npm",    ".gitconfig",    ".vscode",   ".mozilla",  ".bash_logout", ".zsh_history",
      ".kube",   ".netrc",        "OneDrive",  "AppData"};
  return names;
}

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\r'; }

std::string_view Trimmed(std::string_view line) {
  while (!line.empty() && IsSpace(line.front())) {
    line.remove_prefix(1);
  }
  while (!line.empty() && IsSpace(line.back())) {
    line.remove_suffix(1);
  }
  return line;
}

// Length of `1.` or `12)` at the beginning; 0 if there is none.
size_t NumberLength(std::string_view line) {
  size_t digits = 0;
  while (digits < line.size() && digits < 4 && line[digits] >= '0' && line[digits] <= '9') {
    ++digits;
  }
  const char after = digits > 0 && digits < line.size() ? line[digits] : '\0';
  return after == '.' || after == ')' ? digits + 1 : 0;
}

// Without what people put before and after the items of a list.
std::string_view Item(std::string_view line) {
  constexpr std::string_view kBefore = "*-`[\"' \t";
  constexpr std::string_view kAfter = "`*/,\"']: \t";
  line = Trimmed(line);
  line.remove_prefix(NumberLength(line));
  const auto strip = [&] {
    while (!line.empty() && kBefore.find(line.front()) != std::string_view::npos) {
      line.remove_prefix(1);
    }
  };
  strip();
  for (const std::string_view mark : {"\xf0\x9f\x93\x81", "\xf0\x9f\x93\x82", "\xe2\x80\xa2"}) {
    if (line.starts_with(mark)) {
      line.remove_prefix(mark.size());
    }
  }
  strip();
  // What is said of it.
  for (const std::string_view more : {" (", " - ", " \xe2\x80\x93 ", " \xe2\x80\x94 ", ": "}) {
    line = line.substr(0, line.find(more));
  }
  while (!line.empty() && kAfter.find(line.back()) != std::string_view::npos) {
    line.remove_suffix(1);
  }
  return line;
}

bool IsLong(std::string_view line) {
  constexpr std::string_view kTypes = "-dlbcps";
  if (line.size() < 20 || kTypes.find(line[0]) == std::string_view::npos) {
    return false;
  }
  for (size_t i = 1; i < 10; ++i) {
    constexpr std::string_view kBits = "rwxsStT-";
    if (kBits.find(line[i]) == std::string_view::npos) {
      return false;
    }
  }
  return line[10] == ' ' || line[10] == '.' || line[10] == '+' || line[10] == '@';
}

bool IsDir(std::string_view line) {
  return line.size() > 20 && line[0] >= '0' && line[0] <= '9' &&
         line.find("<DIR>") != std::string_view::npos;
}

bool IsPathLine(std::string_view line) {
  const bool begins = line.starts_with("/") || line.starts_with("./") || line.starts_with("~/");
  return begins && line.size() >= 3 && !line.starts_with("//") && !line.starts_with("/*") &&
         std::none_of(line.begin(), line.end(),
                      [](char c) { return c == ' ' || c == '(' || c == ';' || c == '<'; });
}

bool IsTree(std::string_view line) {
  return line.find("\xe2\x94\x9c\xe2\x94\x80") != std::string_view::npos ||
         line.find("\xe2\x94\x94\xe2\x94\x80") != std::string_view::npos;
}

bool BeginsHomeName(char c) {
  return c == '.' || c == 'A' || c == 'D' || c == 'L' || c == 'M' || c == 'O' || c == 'P' ||
         c == 'T' || c == 'V';
}

bool IsBetween(char c) {
  return c == ' ' || c == '\t' || c == ',' || c == '"' || c == '\'' || c == '`' || c == '[' ||
         c == ']' || c == '(' || c == ')' || c == ':' || c == ';' || c == '|';
}

// Several names of home folders on one line, as `ls` prints them. `prose`: as a sentence lists
// them, one after the other; words that are not part of the list end it.
bool IsColumns(std::string_view line, bool prose) {
  size_t known = 0;
  size_t begin = 0;
  bool after_mark = false;  // a comma or the like stands before the word
  for (size_t i = 0; i <= line.size(); ++i) {
    const char c = i < line.size() ? line[i] : ' ';
    if (!IsBetween(c)) {
      continue;
    }
    std::string_view word = line.substr(begin, i - begin);
    begin = i + 1;
    while (!word.empty() && word.front() == '*') {
      word.remove_prefix(1);
    }
    while (!word.empty() &&
           (word.back() == '*' || word.back() == '/' || (word.back() == '.' && word.size() > 4))) {
      word.remove_suffix(1);
    }
    const bool is = word.size() >= 4 && word.size() <= 16 && BeginsHomeName(word[0]) &&
                    HomeNames().contains(word);
    known += is ? 1 : 0;
    if (known >= kLeastHome) {
      return true;
    }
    if (prose && !is && !word.empty() && word != "and" && !after_mark && c == ' ') {
      known = 0;
    }
    after_mark = c != ' ' || (word.empty() && after_mark);
  }
  return false;
}

// Whether names of home folders may stand in the text: nearly every home folder has one of these.
bool MayNameHome(std::string_view text) {
  for (size_t at = text.find('D'); at != std::string_view::npos; at = text.find('D', at + 1)) {
    const std::string_view rest = text.substr(at + 1);
    if (rest.starts_with("esktop") || rest.starts_with("ocuments") ||
        rest.starts_with("ownloads")) {
      return true;
    }
  }
  return text.find(".bash") != std::string_view::npos ||
         text.find(".ssh") != std::string_view::npos;
}

// Most lines are told by their first character to be none of these.
LineKind KindOf(std::string_view raw, bool may_name_home) {
  std::string_view line = Trimmed(raw);
  // As mail and Markdown quote.
  while (!line.empty() && line.front() == '>') {
    line = Trimmed(line.substr(1));
  }
  const char first = line.empty() ? '\0' : line[0];
  bool item = BeginsHomeName(first);
  switch (first) {
    case '\0':
      return LineKind::kText;
    case '/':
    case '~':
      return IsPathLine(line) ? LineKind::kPath : LineKind::kText;
    case 't':
      if (line.starts_with("total ") && line.size() < 24) {
        return LineKind::kTotal;
      }
      break;
    case '-':
    case '*':
    case '`':
    case '"':
    case '[':
      item = true;
      break;
    case '.':
      if (line.starts_with("./") && IsPathLine(line)) {
        return LineKind::kPath;
      }
      break;
    default:
      item = item || (first >= '0' && first <= '9' && NumberLength(line) > 0);
      break;
  }
  if (IsLong(line) || IsDir(line)) {
    return LineKind::kLong;
  }
  if (static_cast<unsigned char>(first) >= 0xe2) {
    if (IsTree(line)) {
      return LineKind::kTree;
    }
    item = true;
  }
  if (item) {
    const std::string_view name = Item(line);
    const bool plain = !BeginsHomeName(first) || name.size() + 2 >= line.size();
    if (plain && name.size() >= 4 && name.size() <= 16 && HomeNames().contains(name)) {
      return LineKind::kHome;
    }
  }
  if (!may_name_home || line.size() < 16) {
    return LineKind::kText;
  }
  const bool columns = item || line.find("  ") != std::string_view::npos;
  return IsColumns(line, !columns) ? LineKind::kColumns : LineKind::kText;
}

// Lines of one kind that follow each other.
struct Block {
  LineKind kind = LineKind::kText;
  size_t begin = 0;
  size_t end = 0;
  size_t lines = 0;
};

}  // namespace

void FindListings(std::string_view text, Spans& found) {
  // `tree` ends with a count; a drawing in a README does not.
  const bool counted = text.find(" directories,") != std::string_view::npos ||
                       text.find(" directory,") != std::string_view::npos;
  const bool may_name_home = MayNameHome(text);
  Block block;
  std::string_view before;  // the last line that is not of the block
  const auto close = [&] {
    const bool rooted = before.starts_with("/") || before.starts_with("~");
    const bool is =
        (block.kind == LineKind::kLong && block.lines >= kLeastLong) ||
        (block.kind == LineKind::kPath && block.lines >= kLeastPaths) ||
        (block.kind == LineKind::kTree && block.lines >= kLeastTree && (counted || rooted)) ||
        (block.kind == LineKind::kHome && block.lines >= kLeastHome) ||
        block.kind == LineKind::kColumns;
    if (is) {
      found.push_back({block.begin, block.end, "listing"});
    }
    block = {};
  };
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    LineKind kind = KindOf(line, may_name_home);
    if (kind == LineKind::kTotal) {
      close();
      block = {.kind = LineKind::kLong, .begin = at, .end = end, .lines = 1};
    } else if (kind == block.kind && kind != LineKind::kText) {
      block.end = end;
      ++block.lines;
    } else {
      if (block.lines > 0) {
        close();
      }
      if (kind != LineKind::kText) {
        block = {.kind = kind, .begin = at, .end = end, .lines = 1};
      } else {
        before = Trimmed(line);
      }
      if (kind == LineKind::kPath) {
        before = Trimmed(line);
      }
    }
    at = end + 1;
  }
  close();
}

void FindHostPaths(std::string_view text, const std::vector<std::string>& folders, Spans& found) {
  static constexpr std::array<std::string_view, 3> kHomes{"/home/", "/Users/", "/root"};
  const auto is_word = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  const auto ends = [](char c) {
    return static_cast<unsigned char>(c) <= 0x20 || c == '"' || c == '\'' || c == '`' || c == ')' ||
           c == ']' || c == '}' || c == '>' || c == '<' || c == ',' || c == ';' || c == '|';
  };
  const auto path_end = [&](size_t at) {
    while (at < text.size() && !ends(text[at])) {
      ++at;
    }
    return at;
  };
  // `C:\Users\…`, also with the backslashes doubled.
  for (size_t at = text.find('\\'); at != std::string_view::npos; at = text.find('\\', at)) {
    const std::string_view rest = text.substr(at);
    const bool home = at >= 2 && text[at - 1] == ':' &&
                      (rest.starts_with("\\Users\\") || rest.starts_with("\\\\Users\\\\"));
    const size_t end = home ? path_end(at) : at + 1;
    if (home) {
      found.push_back({at - 2, end, "path.host"});
    }
    at = end;
  }
  for (size_t at = text.find('/'); at != std::string_view::npos; at = text.find('/', at)) {
    const std::string_view rest = text.substr(at);
    const char before = at == 0 ? ' ' : text[at - 1];
    const bool url = before == '/' && at >= 2 && text[at - 2] == '/';  // the third of `file:///`
    if ((is_word(before) || before == '/') && !url) {
      ++at;
      continue;
    }
    const auto below = [&](std::string_view folder) {
      return rest.starts_with(folder) &&
             (folder.ends_with('/')
                  ? rest.size() > folder.size() && is_word(rest[folder.size()])
                  : rest.size() == folder.size() || !is_word(rest[folder.size()]));
    };
    if (std::any_of(kHomes.begin(), kHomes.end(), below) ||
        std::any_of(folders.begin(), folders.end(), below)) {
      const size_t end = path_end(at);
      found.push_back({at, end, "path.host"});
      at = end;
    } else {
      ++at;
    }
  }
}

}  // namespace creel
