#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace creel::bench {

// Times of one thing, in milliseconds.
class Samples {
 public:
  void Add(double ms) { values_.push_back(ms); }
  [[nodiscard]] double Median() const { return Quantile(0.5); }
  [[nodiscard]] double Quantile(double q) const;
  [[nodiscard]] const std::vector<double>& values() const { return values_; }

 private:
  std::vector<double> values_;
};

// How long `action` takes, in milliseconds.
double TimeMs(const std::function<void()>& action);

// What a run found: named figures, the samples behind them, and the bar each is held to.
class Report {
 public:
  // Prints a line as it comes.
  void Times(const std::string& name, const Samples& samples);
  // `bar` such as "<= 2.5"; empty: none.
  void Figure(const std::string& name, double value, const std::string& bar,
              const std::string& what);
  // {"figures": {NAME: number}, "bars": {NAME: text}, "what": {NAME: text},
  //  "raw": {NAME: [ms, …]}}
  void WriteJson(const std::string& file) const;
  void PrintFigures() const;

 private:
  struct Line {
    double value;
    std::string bar;
    std::string what;
  };
  std::map<std::string, Line> figures_;
  std::map<std::string, std::vector<double>> raw_;
};

}  // namespace creel::bench
