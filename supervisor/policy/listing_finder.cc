#include "supervisor/policy/listing_finder.h"

#include <algorithm>
#include <array>
#include <unordered_set>

namespace creel {
namespace {

// What a line of the text is.
enum class LineKind {
  kText,
  kLong,    // of `ls -l`, `dir` or Get-ChildItem
  kTotal,   // the line before
  kPath,    // a path, also with sizes and times before it, as an item of a list or in quotes
  kQuoted,  // a path in quotes, as in an array over several lines
  kTree,
  kIcon,     // a name after an icon of those that only file listers print
  kHome,     // the name of something that lies in home folders
  kColumns,  // several of those, or of paths
};

constexpr size_t kLeastLong = 2;
constexpr size_t kLeastPaths = 4;
constexpr size_t kLeastTree = 3;
constexpr size_t kLeastHome = 3;
constexpr size_t kLeastIcons = 3;

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

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Length of the character at the beginning if it is in a private area of Unicode, where the icons
// of file listers are; else 0.
size_t IconLength(std::string_view line) {
  if (line.size() < 5) {
    return 0;
  }
  const auto first = static_cast<unsigned char>(line[0]);
  const auto second = static_cast<unsigned char>(line[1]);
  const bool basic = first == 0xee || (first == 0xef && second <= 0xa3);
  return basic ? 3 : first == 0xf3 && second >= 0xb0 ? 4 : 0;
}

// Length of the symbol at the beginning: a bullet, an arrow, an emoji, an icon; 0: a letter or
// none.
size_t SymbolLength(std::string_view line) {
  if (line.starts_with("\xe2")) {
    return std::min<size_t>(3, line.size());
  }
  if (line.starts_with("\xf0\x9f")) {
    return std::min<size_t>(4, line.size());
  }
  return line.starts_with("\xef\xb8\x8f") ? 3 : IconLength(line);  // the selector of emoji
}

// Without what people put before and after the items of a list.
std::string_view Item(std::string_view line) {
  constexpr std::string_view kBefore = "*-+`[\"' \t";
  constexpr std::string_view kAfter = "`*/,\"']: \t";
  line = Trimmed(line);
  line.remove_prefix(NumberLength(line));
  const auto strip = [&] {
    while (!line.empty() && kBefore.find(line.front()) != std::string_view::npos) {
      line.remove_prefix(1);
    }
  };
  strip();
  for (size_t symbol = SymbolLength(line); symbol > 0; symbol = SymbolLength(line)) {
    line.remove_prefix(symbol);
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

// Beginning at `at`; moves behind it.
bool TakeAll(std::string_view line, size_t& at, std::string_view of, size_t least) {
  const size_t begin = at;
  while (at < line.size() && of.find(line[at]) != std::string_view::npos) {
    ++at;
  }
  return at - begin >= least;
}

bool IsMode(std::string_view line) {
  constexpr std::string_view kTypes = "-dlbcps.";  // eza writes a dot for a file
  if (line.size() < 11 || kTypes.find(line[0]) == std::string_view::npos) {
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

bool IsLong(std::string_view line) { return line.size() >= 20 && IsMode(line); }

// `-a----         1/2/2026  10:00 AM           1234 notes.txt`
bool IsGetChildItem(std::string_view line) {
  size_t at = 1;
  return line.size() > 24 && (line[0] == 'd' || line[0] == '-' || line[0] == 'l') &&
         TakeAll(line, at, "-arhsl", 4) && at <= 7 && TakeAll(line, at, " ", 2) &&
         TakeAll(line, at, "0123456789/.-", 6) && TakeAll(line, at, " ", 1) &&
         TakeAll(line, at, "0123456789:", 3);
}

// `01/02/2026  10:00    <DIR>          a` and `01/02/2026  10:00 AM             1,234 b`
bool IsDir(std::string_view line) {
  size_t at = 0;
  if (line.size() <= 20 || !IsDigit(line[0]) || !TakeAll(line, at, "0123456789/.-", 8) ||
      !TakeAll(line, at, " \t", 1) || !TakeAll(line, at, "0123456789:", 3)) {
    return false;
  }
  if (line.find("<DIR>") != std::string_view::npos) {
    return true;
  }
  TakeAll(line, at, " APMapm", 0);
  return line[at - 1] == ' ' && line[at - 2] == ' ' && TakeAll(line, at, "0123456789,.", 1) &&
         at + 1 < line.size() && line[at] == ' ';
}

bool IsPathLine(std::string_view line) {
  const bool begins = line.starts_with("/") || line.starts_with("./") || line.starts_with("~/");
  return begins && line.size() >= 3 && !line.starts_with("//") && !line.starts_with("/*") &&
         std::none_of(line.begin(), line.end(),
                      [](char c) { return c == ' ' || c == '(' || c == ';' || c == '<'; });
}

// A path that is one of files without doubt: a list of others may be of URLs.
bool IsFilePath(std::string_view path) {
  if (!path.starts_with("/")) {
    return IsPathLine(path);
  }
  for (const std::string_view top :
       {"/home/", "/root/", "/Users/", "/etc/", "/srv/", "/opt/", "/usr/", "/var/", "/mnt/",
        "/media/", "/tmp/", "/run/", "/boot/", "/dev/", "/proc/", "/sys/"}) {
    if (path.starts_with(top)) {
      return IsPathLine(path);
    }
  }
  return false;
}

// `D:\x\y.txt`, as `dir /b /s` prints it.
bool IsDrivePath(std::string_view line) {
  return line.size() > 3 && line[1] == ':' && line[2] == '\\' && line[3] != '\\' &&
         line.find_first_of("(;<\"'") == std::string_view::npos;
}

// `4096 ./a`, `2026-01-02 10:00 ./b`, `drwxr-xr-x 12K /srv/c`: sizes, times and modes, and then the
// rest. What of `line` that is; empty: nothing stands before it.
std::string_view AfterFacts(std::string_view line) {
  size_t at = 0;
  for (size_t facts = 0; facts < 6 && at < line.size(); ++facts) {
    const size_t begin = at;
    if (IsDigit(line[at])) {
      TakeAll(line, at, "0123456789.,:-+/TZ", 1);
      TakeAll(line, at, "KMGTPiBb", 0);
    } else if (IsMode(line.substr(at))) {
      at += 10;
    }
    if (at == begin || at >= line.size() || (line[at] != ' ' && line[at] != '\t')) {
      return begin == 0 ? std::string_view() : line.substr(begin);
    }
    TakeAll(line, at, " \t", 1);
  }
  return line.substr(at);
}

bool IsTree(std::string_view line) {
  return line.find("\xe2\x94\x9c\xe2\x94\x80") != std::string_view::npos ||
         line.find("\xe2\x94\x94\xe2\x94\x80") != std::string_view::npos;
}

// As `tree` draws where there is but ASCII, on Unix and on Windows.
bool IsAsciiTree(std::string_view line) {
  size_t at = 0;
  while (at < line.size() && (line[at] == '|' || line[at] == ' ') &&
         !line.substr(at).starts_with("|-")) {
    ++at;
  }
  const std::string_view rest = line.substr(at);
  for (const std::string_view branch : {"|-- ", "`-- ", "+-- ", "+---", "\\---"}) {
    if (rest.starts_with(branch) && rest.size() > branch.size()) {
      const char name = rest[branch.size()];
      return name != '-' && name != '|' && name != '+' && name != ' ';
    }
  }
  return false;
}

bool BeginsHomeName(char c) {
  return c == '.' || c == 'A' || c == 'D' || c == 'L' || c == 'M' || c == 'O' || c == 'P' ||
         c == 'T' || c == 'V';
}

bool IsHomeName(std::string_view name) {
  return name.size() >= 4 && name.size() <= 16 && BeginsHomeName(name[0]) &&
         HomeNames().contains(name);
}

bool IsBetween(char c) {
  return c == ' ' || c == '\t' || c == ',' || c == '"' || c == '\'' || c == '`' || c == '[' ||
         c == ']' || c == '(' || c == ')' || c == ':' || c == ';' || c == '|';
}

// An array of paths on one line, of files of a machine or (`relative`) below some folder: in code
// and its settings the latter are a project's own.
bool IsQuotedPaths(std::string_view line, bool relative) {
  if (line[0] != '[' && line.find("\":[") == std::string_view::npos &&
      line.find("\": [") == std::string_view::npos) {
    return false;
  }
  size_t known = 0;
  for (size_t at = line.find('"'); at != std::string_view::npos; at = line.find('"', at + 1)) {
    const size_t end = std::min(line.find('"', at + 1), line.size());
    const std::string_view path = line.substr(at + 1, end - at - 1);
    known += IsFilePath(path) && (relative || path[0] != '.') ? 1 : 0;
    if (known >= kLeastPaths) {
      return true;
    }
    at = end;
    if (at == line.size()) {
      break;
    }
  }
  return false;
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
    const bool is = IsHomeName(word);
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
  for (size_t at = text.find('.'); at != std::string_view::npos; at = text.find('.', at + 1)) {
    const std::string_view rest = text.substr(at + 1);
    if (rest.empty() || rest[0] == ' ' || rest[0] == '\n') {
      continue;
    }
    for (const std::string_view name :
         {"bash", "ssh", "cache", "config", "profile", "zsh", "gnupg", "aws", "npm"}) {
      if (rest.starts_with(name)) {
        return true;
      }
    }
  }
  return false;
}

// A line that begins with a digit: of `dir`, of `du`, of `ls -s`, or of a find with sizes.
LineKind KindOfNumbered(std::string_view line) {
  if (IsDir(line)) {
    return LineKind::kLong;
  }
  const std::string_view rest = AfterFacts(line);
  if (rest.empty()) {
    return LineKind::kText;
  }
  if (IsFilePath(rest)) {
    return LineKind::kPath;
  }
  return IsHomeName(Item(rest)) ? LineKind::kHome : LineKind::kText;
}

// Without a comma at its end.
std::string_view Closed(std::string_view line) {
  return line.ends_with(',') ? line.substr(0, line.size() - 1) : line;
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
    case '|':
    case '+':
    case '\\':
    case '`':
      if (IsAsciiTree(line)) {
        return LineKind::kTree;
      }
      item = first != '+' || line.starts_with("+ ");  // else it may be of a diff
      break;
    case '-':
    case '*':
    case '"':
    case '\'':
    case '[':
      item = true;
      break;
    case '{':
      if (IsQuotedPaths(line, /*relative=*/false)) {
        return LineKind::kColumns;
      }
      break;
    case '.':
      if (line.starts_with("./") && IsPathLine(line)) {
        return LineKind::kPath;
      }
      break;
    default:
      if (IsDigit(first)) {
        if (const LineKind kind = KindOfNumbered(line); kind != LineKind::kText) {
          return kind;
        }
        item = item || NumberLength(line) > 0;
      } else if (IsDrivePath(line)) {
        return LineKind::kPath;
      }
      break;
  }
  if (IsLong(line) || IsGetChildItem(line)) {
    return LineKind::kLong;
  }
  // A find with modes.
  if (IsMode(line) && IsFilePath(AfterFacts(line))) {
    return LineKind::kPath;
  }
  if (static_cast<unsigned char>(first) >= 0xe2) {
    if (IsTree(line)) {
      return LineKind::kTree;
    }
    item = true;
  }
  if (item) {
    // Of a table the first column.
    const size_t cell = first == '|' ? 1 : 0;
    const std::string_view name =
        Item(cell > 0 ? line.substr(cell, line.find('|', cell) - cell) : line);
    const bool plain = !BeginsHomeName(first) || name.size() + 2 >= line.size();
    if (plain && IsHomeName(name)) {
      return LineKind::kHome;
    }
    if (first == '"' && IsFilePath(name) && Closed(line).size() == name.size() + 2) {
      return LineKind::kQuoted;
    }
    // What is a list to people is one of settings to programs.
    const bool settings = name.find(':') != std::string_view::npos || first == '"' ||
                          (first == '-' && name.starts_with(".") && !line.ends_with('`'));
    if (!BeginsHomeName(first) && !settings && IsFilePath(name)) {
      return LineKind::kPath;
    }
    if (first == '[' && IsQuotedPaths(line, /*relative=*/true)) {
      return LineKind::kColumns;
    }
  }
  if (may_name_home && line.size() >= 16) {
    const bool columns = item || line.find("  ") != std::string_view::npos;
    if (IsColumns(line, !columns)) {
      return LineKind::kColumns;
    }
  }
  const size_t icon = item ? IconLength(line) : 0;
  return icon > 0 && line[icon] == ' ' ? LineKind::kIcon : LineKind::kText;
}

// Lines of one kind that follow each other.
struct Block {
  LineKind kind = LineKind::kText;
  size_t begin = 0;
  size_t end = 0;
  size_t lines = 0;
  bool relative = false;  // a path of it is
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
        (block.kind == LineKind::kQuoted && block.lines >= kLeastPaths &&
         (block.relative ? before == "[" : before.ends_with("["))) ||
        (block.kind == LineKind::kIcon && block.lines >= kLeastIcons) ||
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
    block.relative = block.relative || (kind == LineKind::kQuoted && Trimmed(line)[1] == '.');
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
