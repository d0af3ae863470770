#include "tests/bench/figures.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

namespace creel::bench {
namespace {

bool Meets(double value, const std::string& bar) {
  if (bar.empty()) {
    return true;
  }
  const double limit = std::atof(bar.c_str() + 3);
  return bar[0] == '<' ? value <= limit : value >= limit;
}

}  // namespace

double Samples::Quantile(double q) const {
  if (values_.empty()) {
    return 0;
  }
  std::vector<double> sorted = values_;
  std::sort(sorted.begin(), sorted.end());
  return sorted[std::min(sorted.size() - 1,
                         static_cast<size_t>(q * static_cast<double>(sorted.size())))];
}

double TimeMs(const std::function<void()>& action) {
  const auto begin = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
      .count();
}

void Report::Times(const std::string& name, const Samples& samples) {
  std::printf("%-44s median %9.3f ms   p95 %9.3f   n %zu\n", name.c_str(), samples.Median(),
              samples.Quantile(0.95), samples.values().size());
  std::fflush(stdout);
  raw_[name] = samples.values();
}

void Report::Figure(const std::string& name, double value, const std::string& bar,
                    const std::string& what) {
  figures_[name] = {value, bar, what};
}

void Report::PrintFigures() const {
  std::printf("\n%-28s %10s  %-8s %-5s %s\n", "figure", "value", "bar", "", "what");
  for (const auto& [name, line] : figures_) {
    std::printf("%-28s %10.3f  %-8s %-5s %s\n", name.c_str(), line.value, line.bar.c_str(),
                line.bar.empty() ? "" : (Meets(line.value, line.bar) ? "ok" : "MISS"),
                line.what.c_str());
  }
}

void Report::WriteJson(const std::string& file) const {
  nlohmann::json json;
  for (const auto& [name, line] : figures_) {
    json["figures"][name] = line.value;
    json["bars"][name] = line.bar;
    json["what"][name] = line.what;
  }
  json["raw"] = raw_;
  std::ofstream(file) << json.dump(1) << "\n";
}

}  // namespace creel::bench
